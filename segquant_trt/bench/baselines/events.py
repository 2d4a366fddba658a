"""Time between two events on a GPU's stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CudaEvents:
    """A pair of events of `torch.cuda`, recorded around a call.

    Only what the GPU does between them counts; the host waits for the second one, so that the
    next subject starts on an idle device.
    """

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._start = cuda.Event(enable_timing=True)
        self._end = cuda.Event(enable_timing=True)

    def time(self, call: Callable[[], object]) -> float:
        """Milliseconds of one call."""
        self._start.record()
        call()
        self._end.record()
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end))
