"""Energy is read from NVML's counter or not at all. NVML is played by a stand-in."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from segquant_trt.bench.energy import energy_j_per_call, energy_meter
from tests.bench.subjects import Sleeper

BUS = "00000000:01:00.0"


class Nvml:
    """A board that uses `per_call` joules whenever the subject runs."""

    def __init__(self, *, start: int = 0, found: int = 0, counts: int = 0) -> None:
        self.joules = 12.0
        self.codes = {"start": start, "found": found, "counts": counts}
        self.asked: list[bytes] = []

    def nvmlInit_v2(self) -> int:
        return self.codes["start"]

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus: bytes, handle: Any) -> int:
        self.asked.append(bus)
        ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))[0] = 77
        return self.codes["found"]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, value: Any) -> int:
        assert handle.value == 77
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = round(self.joules * 1e3)
        return self.codes["counts"]


def spender(nvml: Nvml, per_call: float) -> Sleeper:
    def spend() -> None:
        nvml.joules += per_call

    return Sleeper(name="engine", on_run=spend)


def test_joules_per_call_are_those_of_the_counter() -> None:
    nvml = Nvml()
    meter = energy_meter(BUS, nvml)
    assert nvml.asked == [BUS.encode()]
    found = energy_j_per_call(meter, spender(nvml, 0.75), seconds=0.01)
    assert found == pytest.approx(0.75, rel=1e-3)


@pytest.mark.parametrize("broken", [{"start": 9}, {"found": 6}, {"counts": 3}])
def test_no_figure_where_nvml_does_not_answer(broken: dict[str, int]) -> None:
    assert energy_meter(BUS, Nvml(**broken)) is None


def test_no_figure_without_a_gpu_or_for_a_counter_that_stands_still() -> None:
    nvml = Nvml()
    assert energy_meter(None, nvml) is None
    assert nvml.asked == []
    subject = Sleeper(name="cpu")
    assert energy_j_per_call(None, subject, seconds=9.0) is None
    assert subject.log == []
    meter = energy_meter(BUS, nvml)
    assert energy_j_per_call(meter, spender(nvml, 0.0), seconds=0.0) is None
