"""What this machine is called: the name that timings and cost tables carry."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")


def hardware() -> dict[str, str]:
    """Processor, instruction sets that matter for INT8, cores and memory."""
    cpu, flags = _cpu()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "instructions": " ".join(flag for flag in _FLAGS if flag in flags),
        "cores": str(os.cpu_count()),
        "memory_gib": f"{pages / 2**30:.0f}",
        "system": f"{platform.system()} {platform.machine()}",
    }


def hardware_name() -> str:
    """Processor and instruction sets in one line."""
    found = hardware()
    return f"{found['cpu']} {found['instructions']}".strip()


def _cpu() -> tuple[str, frozenset[str]]:
    name, flags = platform.processor() or "unknown", frozenset[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags
