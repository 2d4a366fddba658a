"""Energy per call of a GPU, from the counter that NVML keeps of the whole board.

Board energy includes what an idle GPU draws. There is no figure where there is no counter: a
processor, a GPU before Volta, or a driver that hides it.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

from segquant_trt.bench.timed import Timed

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_MILLIJOULES_PER_JOULE = 1e3


class EnergyMeter:
    """The energy counter of one GPU.

    Args:
        library: NVML, with its functions initialised.
        handle: of the GPU in it.
    """

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def joules(self) -> float | None:
        """Joules since the driver was loaded; None where this GPU does not count them."""
        millijoules = ctypes.c_ulonglong()
        code = self._library.nvmlDeviceGetTotalEnergyConsumption(
            self._handle, ctypes.byref(millijoules)
        )
        return millijoules.value / _MILLIJOULES_PER_JOULE if code == _SUCCESS else None


def energy_meter(pci_bus_id: str | None, library: Any = None) -> EnergyMeter | None:
    """The meter of the GPU at this PCI address; None without NVML, GPU or counter.

    Args:
        pci_bus_id: None for subjects that run on no GPU.
        library: NVML; loaded when None.
    """
    library = _nvml() if pci_bus_id is not None and library is None else library
    if pci_bus_id is None or library is None or library.nvmlInit_v2() != _SUCCESS:
        return None
    handle = ctypes.c_void_p()
    found = library.nvmlDeviceGetHandleByPciBusId_v2(pci_bus_id.encode(), ctypes.byref(handle))
    if found != _SUCCESS:
        return None
    meter = EnergyMeter(library, handle)
    return None if meter.joules() is None else meter


def energy_j_per_call(meter: EnergyMeter | None, subject: Timed, *, seconds: float) -> float | None:
    """Joules per call over a block of calls of one subject alone; None where nothing is counted."""
    if meter is None:
        return None
    subject.run()
    before, begun, calls = meter.joules(), time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - begun < seconds:
        subject.run()
        calls += 1
    after = meter.joules()
    if before is None or after is None or after <= before:
        return None
    return (after - before) / calls


def _nvml() -> Any:
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
