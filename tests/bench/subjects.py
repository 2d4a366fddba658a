"""Subjects that take as long as they are told, and answer what they are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segquant_trt.bench.timed import Timed
from segquant_trt.records import TensorSpec

Array = npt.NDArray[np.generic]
INPUTS = (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)


@dataclass(kw_only=True)
class Sleeper:
    """A subject and its binding in one. `device_ms`: what its own clock says, None without."""

    name: str
    seconds: float = 0.0
    device_ms: float | None = None
    gain: float = 1.0
    log: list[str] = field(default_factory=list)
    pci_bus_id: str | None = None
    inputs: tuple[TensorSpec, ...] = INPUTS
    given: Mapping[str, Array] = field(default_factory=dict)
    on_run: Callable[[], object] | None = None

    def bind(self, inputs: Mapping[str, Array]) -> Timed:
        self.given = inputs
        return self

    def run(self) -> float | None:
        self.log.append(self.name)
        time.sleep(self.seconds)
        if self.on_run is not None:
            self.on_run()
        return self.device_ms

    def answer(self) -> npt.NDArray[np.float32]:
        return self.gain * np.asarray(self.given["x"], dtype=np.float32)
