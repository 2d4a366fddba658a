"""An engine's file and record, checked before TensorRT sees them.

TensorRT tells little of an engine that does not fit: null, one line of a log, or a crash. The
record that the build wrote beside it tells all, and needs neither a GPU nor TensorRT to be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from segquant_trt.backends.tensorrt.builder.request import INFO_SUFFIX, beside
from segquant_trt.backends.tensorrt.device import Device
from segquant_trt.backends.tensorrt.installed import version_of
from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import from_plain
from segquant_trt.records.engine import EngineInfo
from segquant_trt.records.files import sha256_file

_GIB = 2**30


def read_info(engine: Path) -> EngineInfo | None:
    """The record beside an engine; None for an engine that another tool built.

    Raises:
        SegQuantError: the engine is missing, or its record is damaged.
    """
    if not engine.is_file():
        raise SegQuantError(
            f"there is no engine {engine}", hint="check the path, or build the engine"
        )
    path = beside(engine, INFO_SUFFIX)
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SegQuantError(
            f"the engine's record {path} cannot be read: {error}", hint="build the engine again"
        ) from error
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version != EngineInfo.SCHEMA_VERSION:
        raise SegQuantError(
            f"{path} has schema_version {version!r}; this program reads "
            f"{EngineInfo.SCHEMA_VERSION}",
            hint="build the engine again with this version",
        )
    return from_plain(plain, EngineInfo, origin=str(path))


def check_file(engine: Path, info: EngineInfo | None, *, digest: bool = True) -> None:
    """The file is whole, and the one that the record speaks of.

    Raises:
        SegQuantError: it is empty, cut off or changed.
    """
    size = engine.stat().st_size
    if size == 0:
        raise SegQuantError(f"{engine} is empty", hint=_rebuild(info))
    if info is None:
        return
    if size != info.engine_bytes:
        how = "cut off" if size < info.engine_bytes else "longer than it was"
        raise SegQuantError(
            f"{engine} is {how}: {size} bytes of {info.engine_bytes}",
            hint=f"copy the file again, or {_rebuild(info)}",
        )
    if digest and sha256_file(engine) != info.engine_sha256:
        raise SegQuantError(
            f"{engine} is not the engine that its record speaks of: their sha256 differ",
            hint=f"copy both files again, or {_rebuild(info)}",
        )


def check_fits(engine: Path, info: EngineInfo, version: str, device: Device) -> None:
    """The engine is for this TensorRT and this GPU.

    Raises:
        SegQuantError: saying what it was built for, what is here, and how to build it again.
    """
    _check_version(engine, info, version)
    _check_gpu(engine, info, device)
    if device.cuda < version_of(info.cuda):
        raise SegQuantError(
            f"{engine} was built with a driver for CUDA {info.cuda}; the driver here supports "
            f"CUDA {device.cuda[0]}.{device.cuda[1]}",
            hint=f"update the driver, or {_rebuild(info)}",
        )


def check_trust(engine: Path, info: EngineInfo | None, *, trust: bool) -> None:
    """Version-compatible engines carry a runtime, which is executed when they are loaded.

    Raises:
        SegQuantError: it is one, and nobody said that it may.
    """
    if info is not None and info.version_compatible and not trust:
        raise SegQuantError(
            f"{engine} is version-compatible: it carries code that loading it would execute",
            hint="pass trust=True if you know where the file is from",
        )


def check_plugins(engine: Path, info: EngineInfo, given: Sequence[Path]) -> None:
    """The libraries that the engine was built with are given, and are the same.

    Raises:
        SegQuantError: naming one that is missing or different.
    """
    by_name = {path.name: path for path in given}
    for library in info.plugins:
        path = by_name.get(library.name)
        if path is None:
            raise SegQuantError(
                f"{engine} needs the plugin library {library.name}, which is not given",
                hint=f"pass plugins=[.../{library.name}]",
            )
        if sha256_file(path) != library.sha256:
            raise SegQuantError(
                f"{path} is not the library that {engine} was built with: their sha256 differ",
                hint=f"give that library, or {_rebuild(info)}",
            )


def check_free_memory(
    engine: Path, info: EngineInfo, device: Device, contexts: int, budget: int | None
) -> None:
    """The engine fits into what is free, as far as its record tells.

    Args:
        engine: for the message.
        info: its record.
        device: the GPU.
        contexts: execution contexts that will be made.
        budget: bytes of weights that stay on the GPU; None: all.

    Raises:
        SegQuantError: it would not.
    """
    if device.free_bytes is None:
        return
    weights = min(info.engine_bytes, budget) if budget is not None else info.engine_bytes
    needed = weights + contexts * (info.device_memory_bytes or 0)
    if needed > device.free_bytes:
        streamed = "load it with a weight_budget" if info.weight_streaming else "free the GPU"
        raise SegQuantError(
            f"{engine} needs about {needed / _GIB:.2f} GiB of {device.name} with {contexts} "
            f"context(s); {device.free_bytes / _GIB:.2f} GiB are free",
            hint=f"{streamed}, or ask for fewer contexts",
        )


def _check_version(engine: Path, info: EngineInfo, version: str) -> None:
    built, here = version_of(info.tensorrt), version_of(version)
    if info.version_compatible and here >= built:
        return
    if built != here:
        newer = "a TensorRT that is not older" if info.version_compatible else "exactly that one"
        raise SegQuantError(
            f"{engine} was built with TensorRT {info.tensorrt} and needs {newer}; "
            f"here is {version}",
            hint=f"pip install 'tensorrt=={info.tensorrt}', or {_rebuild(info)}",
        )


def _check_gpu(engine: Path, info: EngineInfo, device: Device) -> None:
    here = f"{device.name} (compute capability {device.capability})"
    there = f"{info.gpu} (compute capability {info.compute_capability})"
    match info.hardware_compatibility:
        case "ampere_plus":
            fits = device.compute_capability >= (8, 0)
        case "same_compute_capability":
            fits = device.capability == info.compute_capability
        case _:
            fits = (device.name, device.capability) == (info.gpu, info.compute_capability)
    if not fits:
        raise SegQuantError(
            f"{engine} was built on {there}; here is {here}",
            hint=f"{_rebuild(info)}; --hardwareCompatibilityLevel makes engines for several GPUs",
        )


def _rebuild(info: EngineInfo | None) -> str:
    if info is None:
        return "build it again"
    return f"build it again on this machine: {info.command}"
