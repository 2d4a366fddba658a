"""Open a bundle."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from segquant_trt.backends import Backend, Runner, backend_for
from segquant_trt.backends.hoisting import PromptGraph
from segquant_trt.errors import SegQuantError
from segquant_trt.records import Manifest
from segquant_trt.records.bundle_layout import FALLBACK, MODEL, PROMPT
from segquant_trt.serve.denoiser import CompiledDenoiser
from segquant_trt.serve.frozen_runner import FrozenRunner
from segquant_trt.serve.hoisted_runner import HoistedRunner
from segquant_trt.serve.integrity import checked_manifest


def load(
    bundle: str | Path, *, threads: int | None = None, kept_prompts: int = 8
) -> CompiledDenoiser:
    """Open a bundle after checking every file against its manifest. Runs no code from it.

    Args:
        bundle: the folder that `build` wrote.
        threads: of the runtime; all cores when None.
        kept_prompts: how many prompts are remembered, in a bundle that computes once per prompt
            what depends on nothing else.

    Raises:
        SegQuantError: an argument is of another type or too small; a file is missing, truncated,
            altered or leads out of the bundle; the bundle is for another target or schema; the
            runtime refuses the model.
        MissingDependencyError: the target's runtime is not installed.
    """
    if not isinstance(bundle, (str, os.PathLike)):
        raise SegQuantError(
            f"bundle is {bundle!r}; allowed: the path of a folder",
            hint="pass the folder that 'segquant-trt build' wrote",
        )
    _check_number("kept_prompts", kept_prompts)
    if threads is not None:
        _check_number("threads", threads)
    folder = Path(bundle)
    manifest = checked_manifest(folder)
    backend = backend_for(manifest.target)
    runner: Runner = backend.open(folder / MODEL, threads=threads)
    hoisted = _hoisted(folder, manifest, backend, runner, threads, kept_prompts)
    runner = runner if hoisted is None else hoisted
    frozen = manifest.frozen
    if frozen is not None:
        other = functools.partial(backend.open, folder / FALLBACK, threads=threads)
        runner = FrozenRunner(frozen, runner, other if frozen.fallback else None)
    return CompiledDenoiser(manifest, runner, hoisted)


def _check_number(name: str, number: object) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise SegQuantError(
            f"{name} is {number!r}; allowed: whole numbers of 1 or more",
            hint="leave it out for its default",
        )


def _hoisted(
    folder: Path,
    manifest: Manifest,
    backend: Backend,
    main: Runner,
    threads: int | None,
    capacity: int,
) -> HoistedRunner | None:
    if manifest.hoisted is None:
        return None
    prompt = PromptGraph(
        manifest.hoisted, manifest.frozen, backend.open(folder / PROMPT, threads=threads)
    )
    batch = manifest.frozen.timestep if manifest.frozen and manifest.hoisted.by_step else None
    return HoistedRunner(main, prompt, capacity=capacity, batch_input=batch)
