"""Open a bundle."""

from __future__ import annotations

import functools
from pathlib import Path

from segquant_trt.backends import backend_for
from segquant_trt.errors import SegQuantError
from segquant_trt.records.bundle_layout import FALLBACK, MODEL
from segquant_trt.serve.denoiser import CompiledDenoiser
from segquant_trt.serve.frozen_runner import FrozenRunner
from segquant_trt.serve.integrity import checked_manifest


def load(bundle: str | Path, *, threads: int | None = None) -> CompiledDenoiser:
    """Open a bundle after checking every file against its manifest. Runs no code from it.

    Args:
        bundle: the folder that `build` wrote.
        threads: of the runtime; all cores when None.

    Raises:
        SegQuantError: a file is missing, truncated, altered or leads out of the bundle; the
            bundle is for another target or schema; the runtime refuses the model.
        MissingDependencyError: the target's runtime is not installed.
    """
    if threads is not None and threads < 1:
        raise SegQuantError(
            f"threads is {threads}; allowed: 1 or more", hint="leave it out for all cores"
        )
    folder = Path(bundle)
    manifest = checked_manifest(folder)
    backend = backend_for(manifest.target)
    runner = backend.open(folder / MODEL, threads=threads)
    frozen = manifest.frozen
    if frozen is None:
        return CompiledDenoiser(manifest, runner)
    other = functools.partial(backend.open, folder / FALLBACK, threads=threads)
    return CompiledDenoiser(
        manifest, FrozenRunner(frozen, runner, other if frozen.fallback else None)
    )
