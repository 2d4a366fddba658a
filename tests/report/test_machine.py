from __future__ import annotations

import os
from pathlib import Path

import pytest

from segquant_trt.report.machine import (
    cuda_compiler,
    disk_free_bytes,
    gpus,
    memory_bytes,
    parse_cpuinfo,
    parse_gpus,
    processor,
)

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm\n"


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_processors() -> None:
    first = parse_cpuinfo(X86)
    assert first.name == "Intel(R) Xeon(R) Platinum 8480+"
    assert first.flags == {"fpu", "avx2", "avx512f", "avx512_vnni", "amx_int8"}
    assert {"asimddp", "i8mm"} <= parse_cpuinfo(ARM).flags
    assert parse_cpuinfo("").flags == frozenset()
    assert processor().cores == len(os.sched_getaffinity(0))


def test_memory_is_what_the_kernel_says() -> None:
    total, available = memory_bytes()
    assert total is not None
    assert available is not None
    assert 0 < available <= total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_disk(tmp_path: Path) -> None:
    assert disk_free_bytes(tmp_path) is not None
    assert disk_free_bytes(tmp_path / "nowhere") is None


def test_gpu_list() -> None:
    h200, unknown = parse_gpus("NVIDIA H200, 143771 MiB, 570.86.15, 9.0\nX, [N/A], 1, 5.0\n\n")
    assert (h200.name, h200.memory_bytes) == ("NVIDIA H200", 143771 * 2**20)
    assert (h200.driver, h200.compute_capability) == ("570.86.15", "9.0")
    assert unknown.memory_bytes is None
    assert parse_gpus("No devices were found\n") == ()


def test_programs_that_answer_fail_and_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == ()
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA A2, 15356 MiB, 535.1, 8.6'")
    program(tmp_path, "nvcc", "echo 'Cuda compilation tools, release 12.8, V12.8.93'")
    assert [gpu.name for gpu in gpus()] == ["NVIDIA A2"]
    assert cuda_compiler() == "12.8"
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA A2, 15356 MiB, 535.1, 8.6'; exit 9")
    assert gpus() == ()
