"""Timings of kernels, kept between builds: the second build of a model takes a fraction.

Timings of one GPU, driver or TensorRT say nothing of another, so each has a file of its own.
Builds that run side by side add to what the other one saved.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.records.files import atomic_write_bytes, writing_failed
from segquant_trt.records.progress import Progress
from segquant_trt.records.user_cache import default_cache

if TYPE_CHECKING:
    import tensorrt as trt

    from segquant_trt.backends.tensorrt.device import Device


def timing_cache_path(version: str, device: Device, folder: Path | None = None) -> Path:
    """The file of this TensorRT, GPU and driver, in the user's cache unless `folder` is given."""
    parts = (f"tensorrt-{version}", device.name, f"sm{device.capability}", device.driver or "any")
    name = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts)
    return (folder or default_cache() / "tensorrt") / f"{name}.timing"


def attach(config: trt.IBuilderConfig, path: Path, progress: Progress) -> None:
    """Have the builder use what the file holds; start afresh where it cannot be used."""
    stored = _read(path)
    cache: trt.ITimingCache | None = config.create_timing_cache(stored)
    if cache is not None and config.set_timing_cache(cache, False):
        return
    progress.note(
        f"the timing cache {path} is damaged, or of another GPU or TensorRT: starting a new one"
    )
    fresh: trt.ITimingCache = config.create_timing_cache(b"")
    config.set_timing_cache(fresh, False)


def keep(config: trt.IBuilderConfig, path: Path) -> int:
    """Save what the builder learned, beside what others saved meanwhile; its size in bytes.

    Works after a build that was cancelled too. Nothing is written where nothing was learned.

    Raises:
        SegQuantError: the file cannot be written.
    """
    cache: trt.ITimingCache | None = config.get_timing_cache()
    if cache is None:
        return 0
    with _locked(path):
        others = _read(path)
        theirs: trt.ITimingCache | None = config.create_timing_cache(others) if others else None
        if theirs is not None:
            cache.combine(theirs, False)
        memory: trt.IHostMemory = cache.serialize()
        data = bytes(memory)
        if data and data != others:
            atomic_write_bytes(path, data)
    return len(data)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else saves to `path` meanwhile; the lock goes with the process that holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.with_name(path.name + ".lock").open("wb")
    except OSError as error:
        raise writing_failed(path, error) from error
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
