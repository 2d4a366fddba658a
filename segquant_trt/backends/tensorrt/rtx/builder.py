"""The parent's side of a build: start the process, relay progress, judge the end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import onnx

from segquant_trt.backends.tensorrt.rtx.capability import check_capabilities
from segquant_trt.backends.tensorrt.rtx.report import report_of
from segquant_trt.backends.tensorrt.rtx.shapes import Profile, check_profiles
from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.records.child import child_environment
from segquant_trt.records.layer_report import LayerReport
from segquant_trt.records.progress import Progress, Silent

_MODULE = "tensorrt_rtx_bindings"
_DISTRIBUTION = "tensorrt-rtx-cu13-bindings"
_SHOWN_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RtxEngine:
    """An engine that TensorRT-RTX loads on GPUs of the report's capability."""

    serialized: bytes
    report: LayerReport


def available() -> str | None:
    """The version of TensorRT-RTX that is installed, or None. Loads nothing."""
    if importlib.util.find_spec(_MODULE) is None:
        return None
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"


def build(
    model: Path | bytes,
    *,
    capability: str = "sm_89",
    folder: Path | None = None,
    profiles: Sequence[Profile] = (),
    plugins: Sequence[Path] = (),
    log_path: Path | None = None,
    progress: Progress | None = None,
) -> RtxEngine:
    """One engine; as `build_each`."""
    engines = build_each(
        model,
        capabilities=(capability,),
        folder=folder,
        profiles=profiles,
        plugins=plugins,
        log_path=log_path,
        progress=progress,
    )
    return engines[capability]


def build_portable(
    model: Path | bytes,
    *,
    capabilities: Sequence[str],
    folder: Path | None = None,
    profiles: Sequence[Profile] = (),
    plugins: Sequence[Path] = (),
    log_path: Path | None = None,
    progress: Progress | None = None,
) -> RtxEngine:
    """One engine that runs on all of `capabilities`, at best as their least; as `build_each`."""
    return build(
        model,
        capability="+".join(capabilities),
        folder=folder,
        profiles=profiles,
        plugins=plugins,
        log_path=log_path,
        progress=progress,
    )


def build_each(
    model: Path | bytes,
    *,
    capabilities: Sequence[str],
    folder: Path | None = None,
    profiles: Sequence[Profile] = (),
    plugins: Sequence[Path] = (),
    log_path: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, RtxEngine]:
    """An engine for each compute capability, in a child process and without a GPU.

    Args:
        model: an ONNX file, or its bytes.
        capabilities: some of `CAPABILITIES`, as "sm_89"; "sm_86+sm_89" is one engine for both.
        folder: of the external data, where it is not the file's own.
        profiles: none are needed where the graph fixes all shapes of its inputs.
        plugins: shared libraries whose creators the parser may call.
        log_path: where the verbose logs are kept; the capability is added to its stem.
        progress: told of the steps of every build.

    Raises:
        MissingDependencyError: TensorRT-RTX is not installed.
        SegQuantError: a capability that it does not build for, FP8 on a GPU without it, profiles
            that do not fit, a graph that its parser or builder refuses (with the first error and
            its node), or a crash.
    """
    if available() is None:
        raise MissingDependencyError(_MODULE, extra="rtx", why="building for TensorRT-RTX")
    data = model if isinstance(model, bytes) else _read(model)
    graph = _graph(data, model)
    check_capabilities([one for each in capabilities for one in each.split("+")], graph)
    check_profiles(profiles, graph)
    progress = Silent() if progress is None else progress
    with tempfile.TemporaryDirectory(prefix="segquant-rtx-") as scratch:
        place = Path(scratch)
        path = place / "model.onnx"
        path.write_bytes(data)
        beside = place if isinstance(model, bytes) else model.parent
        request = {
            "parent": os.getpid(),
            "model": str(path),
            "origin": str((beside if folder is None else folder).resolve() / "model.onnx"),
            "shapes": [_plain(profile) for profile in profiles],
            "plugins": [str(library.resolve()) for library in plugins],
            "folder": str(place),
            "capabilities": list(capabilities),
        }
        try:
            built = _run(request, progress)
        finally:
            _keep_logs(place, log_path)
        return {
            capability: RtxEngine(
                serialized=(place / f"{capability}.engine").read_bytes(),
                report=report_of(
                    (place / f"{capability}.log").read_text(encoding="utf-8"),
                    capability=capability,
                    version=told["version"],
                    seconds=told["seconds"],
                    engine_bytes=(place / f"{capability}.engine").stat().st_size,
                ),
            )
            for capability, told in built.items()
        }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SegQuantError(
            f"{path} cannot be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def _graph(data: bytes, origin: Path | bytes) -> onnx.GraphProto:
    try:
        return onnx.load_model_from_string(data).graph
    except Exception as error:  # protobuf's own, by version
        name = "the model" if isinstance(origin, bytes) else str(origin)
        raise SegQuantError(
            f"{name} is no ONNX model: {error}", hint="give a file that 'onnx.load' reads"
        ) from error


def _plain(profile: Profile) -> Mapping[str, list[list[int]]]:
    return {
        name: [list(shape.minimum), list(shape.optimum), list(shape.maximum)]
        for name, shape in profile.items()
    }


def _keep_logs(place: Path, log_path: Path | None) -> None:
    if log_path is None:
        return
    for log in sorted(place.glob("*.log")):
        kept = log_path.with_name(f"{log_path.stem}-{log.stem}{log_path.suffix}")
        kept.write_bytes(log.read_bytes())


def _run(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            [sys.executable, "-m", "segquant_trt.backends.tensorrt.rtx.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=child_environment(),
            text=True,
            start_new_session=True,  # Ctrl-C comes to the parent alone, which kills the child
        )
        try:
            return _converse(process, request, noise, progress)
        finally:
            process.kill()
            process.wait()


def _converse(
    process: subprocess.Popen[str],
    request: Mapping[str, Any],
    noise: IO[bytes],
    progress: Progress,
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stream:
        json.dump(request, stream)
    built: dict[str, Any] = {}
    waiting = list(request["capabilities"])
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            raise SegQuantError(message["error"]["what"], hint=message["error"]["hint"])
        if "step" in message:
            progress.update(f"building for {waiting[0]}", *message["step"])
        if "built" in message:
            built[waiting.pop(0)] = message
    if waiting:
        raise _crashed(process.wait(), Path(request["folder"]) / f"{waiting[0]}.log", noise)
    return built


def _crashed(code: int, log: Path, noise: IO[bytes]) -> SegQuantError:
    noise.seek(0)
    lines = noise.read().decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
    if log.exists():
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = [*(line for line in text.split("\n") if line.startswith(("[E]", "[F]"))), *lines]
    cause = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    shown = "".join(f"\n    {line}" for line in lines[:_SHOWN_LINES])
    return SegQuantError(
        f"TensorRT-RTX crashed while building for {log.stem} ({cause}):{shown}",
        hint="signal 9 usually means that memory ran out; anything else is worth a report to "
        "NVIDIA with the graph",
    )
