"""Plugin libraries: present, for this processor and GPU, and loadable."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.backends.tensorrt.builder.build import build_engine
from segquant_trt.backends.tensorrt.builder.plugin_libraries import (
    DeviceCode,
    check_libraries,
    device_codes,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import sha256_file
from tests.backends.tensorrt.plugin_files import ARM64, X86_64, shared_library
from tests.contract.tensorrt.fake import VERSIONS
from tests.contract.tensorrt.workbench import bench, device, request

HERE, THERE = (X86_64, ARM64) if platform.machine() == "x86_64" else (ARM64, X86_64)


def test_device_code_is_found(tmp_path: Path) -> None:
    path = shared_library(tmp_path / "a.so", ["80", "89+90 ptx", "120"])
    assert list(device_codes(path.read_bytes())) == [
        DeviceCode(architecture=80, portable=False),
        DeviceCode(architecture=89, portable=False),
        DeviceCode(architecture=90, portable=True),
        DeviceCode(architecture=120, portable=False),
    ]


@pytest.mark.parametrize(
    ("code", "runs_on", "not_on"),
    [
        ((80, False), [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0)]),
        ((86, False), [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        ((89, True), [(8, 9), (9, 0), (12, 0)], [(8, 6)]),
        ((120, False), [(12, 0), (12, 1)], [(10, 0), (13, 0)]),
    ],
)
def test_what_runs_where(
    code: tuple[int, bool], runs_on: list[tuple[int, int]], not_on: list[tuple[int, int]]
) -> None:
    found = DeviceCode(architecture=code[0], portable=code[1])
    assert all(found.runs_on(each) for each in runs_on)
    assert not any(found.runs_on(each) for each in not_on)


def test_a_fitting_library_is_recorded(tmp_path: Path) -> None:
    path = shared_library(tmp_path / "a.so", ["90"], machine=HERE)
    without_device_code = shared_library(tmp_path / "b.so", [], machine=HERE)
    first, second = check_libraries([path, without_device_code], device())
    assert (first.name, first.sha256) == ("a.so", sha256_file(path))
    assert second.name == "b.so"


def test_libraries_that_do_not_fit(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("not a library, but long enough to be looked at as if it were one" * 3)
    cases = {
        tmp_path / "none.so": "cannot be read: No such file",
        tmp_path: "cannot be read: Is a directory",
        text: "is no 64-bit shared library",
        shared_library(tmp_path / "arm.so", ["90"], machine=THERE): "is for ",
        shared_library(tmp_path / "old.so", ["80", "89"], machine=HERE): (
            "has code for sm_80, sm_89; NVIDIA H100 PCIe needs sm_90"
        ),
        shared_library(tmp_path / "other.so", ["90"], machine=HERE, entry=b"main"): (
            "brings no TensorRT plugin"
        ),
    }
    for path, told in cases.items():
        with pytest.raises(SegQuantError, match=told) as caught:
            check_libraries([path], device())
        assert str(path) in caught.value.what


@given(st.binary(max_size=400), st.integers(0, 500))
def test_damaged_libraries_do_not_crash(noise: bytes, cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        whole = shared_library(Path(folder) / "a.so", ["89", "90 ptx"]).read_bytes()
    for data in (whole[: max(cut, 64)], whole[:64] + noise, whole[: cut + 64] + noise):
        list(device_codes(data))


def test_a_library_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    library = shared_library(tmp_path / "a.so", ["90"], machine=HERE)
    found, _ = bench(VERSIONS[-1], {"IPluginRegistry.load_library": None})
    with pytest.raises(SegQuantError, match=r"a\.so cannot be loaded: .*a\.so"):
        build_engine(request(tmp_path, plugins=(library,)), tensorrt=found)


@pytest.mark.full
def test_nvccs_own_libraries_are_read(tmp_path: Path) -> None:
    """Sections are as the CUDA compiler writes them, not only as we do."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    source = tmp_path / "k.cu"
    source.write_text(
        "__global__ void k(float *x) { x[threadIdx.x] += 1; }\n"
        'extern "C" void go(float *x) { k<<<1, 32>>>(x); }\n'
    )
    subprocess.run(
        ["nvcc", "-shared", "-Xcompiler", "-fPIC", "-o", tmp_path / "k.so", source,
         "-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=compute_90"],
        check=True, capture_output=True,
    )  # fmt: skip
    found = {*device_codes((tmp_path / "k.so").read_bytes())}
    assert {DeviceCode(architecture=80, portable=False)} <= found
    assert {DeviceCode(architecture=90, portable=True)} <= found
