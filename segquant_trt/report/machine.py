"""What the machine is: processor, memory, GPUs, CUDA compiler. Asks the system, builds nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 10
_GPU_FIELDS = ("name", "memory.total", "driver_version", "compute_cap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """`cores` are those this process may use; `flags` as the kernel names them."""

    name: str
    architecture: str
    cores: int
    flags: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU as the driver reports it."""

    name: str
    memory_bytes: int | None
    driver: str
    compute_capability: str


def processor() -> Processor:
    """The CPU; unknown parts are empty where there is no /proc/cpuinfo."""
    return parse_cpuinfo(_read(Path("/proc/cpuinfo")))


def parse_cpuinfo(text: str) -> Processor:
    """The first core's entry in the text of /proc/cpuinfo (x86 `flags`, Arm `Features`)."""
    entry: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        entry.setdefault(key.strip(), value.strip())
    affinity = getattr(os, "sched_getaffinity", None)
    return Processor(
        name=entry.get("model name") or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        flags=frozenset((entry.get("flags") or entry.get("Features") or "").split()),
    )


def memory_bytes() -> tuple[int | None, int | None]:
    """Total and available memory; a container's limit counts as total."""
    entries = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE))
    total = int(entries["MemTotal"]) * 1024 if "MemTotal" in entries else None
    available = int(entries["MemAvailable"]) * 1024 if "MemAvailable" in entries else None
    limit = _read(Path("/sys/fs/cgroup/memory.max")).strip()
    if total is not None and limit.isdigit() and int(limit) < total:
        total = int(limit)
        used = _read(Path("/sys/fs/cgroup/memory.current")).strip()
        left = total - int(used) if used.isdigit() else total
        available = min(left, available) if available is not None else left
    return total, available


def disk_free_bytes(folder: Path) -> int | None:
    """Free bytes where `folder` is."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def gpus() -> tuple[Gpu, ...]:
    """GPUs that `nvidia-smi` lists; none without a driver."""
    output = _output("nvidia-smi", f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader")
    return parse_gpus(output or "")


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Parse `nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap` as CSV."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == len(_GPU_FIELDS):
            name, memory, driver, capability = parts
            size = re.match(r"(\d+) MiB", memory)
            found.append(
                Gpu(
                    name=name,
                    memory_bytes=int(size[1]) * 2**20 if size else None,
                    driver=driver,
                    compute_capability=capability,
                )
            )
    return tuple(found)


def cuda_compiler() -> str | None:
    """The release of nvcc on PATH or in /usr/local/cuda, or None."""
    for command in ("nvcc", "/usr/local/cuda/bin/nvcc"):
        release = re.search(r"release ([\d.]+)", _output(command, "--version") or "")
        if release:
            return release[1]
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(command: str, *arguments: str) -> str | None:
    if shutil.which(command) is None:
        return None
    try:
        result = subprocess.run(
            [command, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None
