"""Check a bundle before anything in it is used: every byte, every path, nothing but data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import external_range, load_graph
from segquant_trt.records import TARGETS, Manifest, QuantPlan
from segquant_trt.records.bundle_layout import (
    FALLBACK,
    MANIFEST,
    MODEL,
    PLAN,
    PROMPT,
    WEIGHTS,
    data_files,
    is_sealed,
)
from segquant_trt.records.codec import from_plain, read_record
from segquant_trt.records.files import sha256_file

_AGAIN = "copy the bundle again, or run 'segquant-trt build' again"
_MANIFEST_LIMIT_BYTES = 1 << 24


def checked_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle whose files are all there and unaltered.

    Raises:
        SegQuantError: naming the file that is missing, truncated, altered, of another schema or
            target, or that leads out of the bundle.
    """
    if not bundle.is_dir():
        raise SegQuantError(
            f"{bundle} is not a bundle (a folder with {MANIFEST})",
            hint="give the folder that 'segquant-trt build' wrote, RUN/bundle",
        )
    manifest = _manifest(bundle)
    named = sorted(file.name for file in manifest.files)
    expected = data_files(manifest.frozen, manifest.hoisted)
    if named != sorted(expected):
        raise SegQuantError(
            f"{bundle / MANIFEST} lists {', '.join(named)}; a bundle has {', '.join(expected)}",
            hint=_AGAIN,
        )
    for file in manifest.files:
        path = inside(bundle, file.name)
        size = path.stat().st_size
        if size != file.size_bytes:
            raise SegQuantError(
                f"{path} has {size} bytes, the manifest says {file.size_bytes}: "
                "truncated or altered",
                hint=_AGAIN,
            )
        if sha256_file(path) != file.sha256:
            raise SegQuantError(f"{path} was altered: its sha256 differs", hint=_AGAIN)
    _check_plan(bundle, manifest)
    for name in (MODEL, FALLBACK, PROMPT):
        if name in expected:
            _check_graph(bundle, name, manifest)
    return manifest


def inside(bundle: Path, name: str) -> Path:
    """The regular file `name` of the bundle.

    Raises:
        SegQuantError: the name or a link leads out of the bundle, or there is no such file.
    """
    path = bundle / name
    if Path(name).name != name or path.resolve().parent != bundle.resolve():
        raise SegQuantError(
            f"{path} leads out of the bundle; only plain files inside it are allowed", hint=_AGAIN
        )
    if not path.is_file():
        raise SegQuantError(f"{path} does not exist", hint=_AGAIN)
    return path


def _manifest(bundle: Path) -> Manifest:
    path = inside(bundle, MANIFEST)
    if path.stat().st_size > _MANIFEST_LIMIT_BYTES:
        raise SegQuantError(f"{path} is too large to be a manifest", hint=_AGAIN)
    try:
        plain: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        what = f"{path} is not readable JSON: truncated or altered"
        raise SegQuantError(what, hint=_AGAIN) from error
    found = plain.get("schema_version") if isinstance(plain, dict) else None
    if found != Manifest.SCHEMA_VERSION:
        raise SegQuantError(
            f"{path} has schema_version {found!r}; this program reads {Manifest.SCHEMA_VERSION}",
            hint="build the bundle again with this version of segquant-trt",
        )
    if plain.get("target") not in TARGETS:
        raise SegQuantError(
            f"{path} is for target {plain.get('target')!r}; this program runs {', '.join(TARGETS)}",
            hint="build the bundle again for one of these targets",
        )
    manifest = from_plain(plain, Manifest, origin=str(path))
    if not is_sealed(plain):
        raise SegQuantError(f"{path} was altered: its own digest differs", hint=_AGAIN)
    return manifest


def _check_plan(bundle: Path, manifest: Manifest) -> None:
    plan = read_record(bundle / PLAN, QuantPlan)
    if plan.target != manifest.target:
        raise SegQuantError(
            f"{bundle / PLAN} is for target '{plan.target}', the manifest for '{manifest.target}'",
            hint=_AGAIN,
        )


def _check_graph(bundle: Path, name: str, manifest: Manifest) -> None:
    graph = load_graph(bundle / name).graph
    for tensor in graph.initializer:
        place = external_range(tensor)
        if place is not None and place.location != WEIGHTS:
            raise SegQuantError(
                f"{bundle / name}: initializer '{tensor.name}' points to '{place.location}'; "
                f"only {WEIGHTS} is allowed",
                hint=_AGAIN,
            )
    given = {value.name for value in graph.input}
    if given != _expected_inputs(name, manifest, given):
        raise SegQuantError(
            f"{bundle / name} has inputs {', '.join(sorted(given))}, the manifest others",
            hint=_AGAIN,
        )


def _expected_inputs(name: str, manifest: Manifest, given: set[str]) -> set[str]:
    """Those that a graph must have; what is hoisted out of the main graph may spare it some."""
    inputs = {spec.name for spec in manifest.inputs}
    hoisted = manifest.hoisted
    if hoisted is None or name == FALLBACK:
        return inputs
    if name == MODEL:
        return {*hoisted.values, *(inputs & given)}
    steps = manifest.frozen.timestep if manifest.frozen else None
    rows = {hoisted.row_input, *((steps,) if steps in given else ())} if hoisted.by_step else set()
    return {*hoisted.inputs, *filter(None, rows)}
