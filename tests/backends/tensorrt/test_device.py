"""The device check, against a made-up driver, in processes that may crash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segquant_trt.backends.tensorrt import device as devices
from segquant_trt.backends.tensorrt.device import Device, check_precisions, check_tensorrt
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.made_up_driver import build_driver, run

GPU = Device(
    index=0, name="GPU", compute_capability=(8, 9), memory_bytes=2**34, free_bytes=None,
    driver="", cuda=(12, 4),
)  # fmt: skip
SHOW = """
from segquant_trt.backends.tensorrt.device import find_devices, find_device
from segquant_trt.errors import SegQuantError
try:
    for found in find_devices():
        print(found)
    print(find_device(1).free_bytes)
except SegQuantError as error:
    print("error:", error.what, "| hint:", error.hint)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(tmp_path_factory.mktemp("driver"))


def test_two_gpus(driver: Path) -> None:
    code, output, errors = run(SHOW, driver, count=2, capability=120, gib=32, cuda=12080)
    assert (code, errors) == (0, "")
    first, second, free = output.splitlines()
    assert "index=0" in first
    assert "name='NVIDIA Made-Up 1000', compute_capability=(12, 0)" in first
    assert f"memory_bytes={32 * 2**30}, free_bytes={20 * 2**30}" in first
    assert "driver='580.65.06', cuda=(12, 8)" in first
    # Free memory is that of the card at this PCI address, whatever its number.
    assert f"free_bytes={5 * 2**30}" in second
    assert free == str(5 * 2**30)


def test_without_the_management_library(driver: Path) -> None:
    _, output, _ = run(SHOW, driver, count=2, nvml=9)
    assert "free_bytes=None, driver=''" in output


FAULTS = {
    "no device": ({"init": 100}, "finds no CUDA device"),
    "none visible": ({"count": 0}, "finds no CUDA device"),
    "stub library": ({"init": 34}, "is the stub"),
    "kernel module of another version": ({"init": 803}, "of different versions"),
    "compatibility package": ({"init": 804}, "forward-compatibility"),
    "unknown": ({"init": 999}, "fails with error 999"),
    "later failure": ({"attribute_code": 3}, "shutting down"),
    "a number too many": ({"count": 1}, "there is no GPU 1; there is 0: NVIDIA Made-Up 1000"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_driver_is_one_error(fault: str, driver: Path) -> None:
    answers, told = FAULTS[fault]
    code, output, errors = run(SHOW, driver, **answers)
    assert (code, errors) == (0, "")
    assert output.count("error:") == 1
    assert told in output


def test_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CUDA_LIBRARY", str(tmp_path / "libcuda.so.1"))
    with pytest.raises(SegQuantError, match="there is no NVIDIA driver here"):
        devices.find_devices()


def test_a_library_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    monkeypatch.setattr(devices, "CUDA_LIBRARY", str(tmp_path / "libcuda.so.1"))
    with pytest.raises(SegQuantError, match=r"file too short|invalid ELF header"):
        devices.find_devices()


def test_gpu_too_old() -> None:
    with pytest.raises(SegQuantError, match=r"compute capability 7.0; TensorRT 10.9 needs 7.5"):
        check_tensorrt(replace(GPU, compute_capability=(7, 0)), "10.9", None)


def test_driver_too_old() -> None:
    check_tensorrt(GPU, "10.16", 12)
    check_tensorrt(GPU, "10.16", None)
    with pytest.raises(SegQuantError, match=r"CUDA up to 12.4, .* 11.4 is made for CUDA 13"):
        check_tensorrt(GPU, "11.4", 13)
    with pytest.raises(SegQuantError, match=r"driver 550\.1 supports"):
        check_tensorrt(replace(GPU, driver="550.1"), "11.4", 13)


@pytest.mark.parametrize(
    ("capability", "refused"),
    [
        ((7, 5), {"fp8", "fp4"}),
        ((8, 0), {"fp8", "fp4"}),
        ((8, 6), {"fp8", "fp4"}),
        ((8, 9), {"fp4"}),
        ((9, 0), {"fp4"}),
        ((10, 0), set()),
        ((10, 3), {"int8"}),
        ((12, 0), set()),
    ],
)
def test_precisions(capability: tuple[int, int], refused: set[str]) -> None:
    for precision in ("int8", "fp8", "fp4"):
        if precision not in refused:
            check_precisions(capability, [precision])
            continue
        with pytest.raises(SegQuantError, match=rf"{capability[0]}\.{capability[1]}"):
            check_precisions(capability, [precision])
