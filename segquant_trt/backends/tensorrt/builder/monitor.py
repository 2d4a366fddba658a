"""How far the builder is, how long it will take, and a way to stop it that loses nothing.

TensorRT reports nested phases of known step counts. A phase counts as one step of the phase that
it is in, so the fraction that is done only ever grows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segquant_trt.records.progress import Progress

if TYPE_CHECKING:
    import tensorrt as trt

LABEL = "building the engine"
_PARTS = 1000
_QUARTER = _PARTS // 4
_WORTH_ESTIMATING = 0.02
_WORTH_TELLING_S = 10.0


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class BuildMonitor:
    """Fed by TensorRT from its own threads; asked and cancelled from others.

    Args:
        progress: where the share that is done is told, in thousandths.
        clock: seconds that only grow.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._started = clock()
        self._phases: dict[str, _Phase] = {}
        self._told = 0
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self.failure: BaseException | None = None

    def cancel(self) -> None:
        """Have the builder stop at its next step."""
        self._cancelled.set()

    def fail(self, error: BaseException) -> None:
        """Have the builder stop because telling the progress failed; the first error is kept."""
        self.failure = self.failure or error
        self.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self._cancelled.is_set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins within another one, or as the outermost."""
        with self._lock:
            self._phases[name] = _Phase(parent or None, max(steps, 1))

    def step(self, name: str, step: int) -> bool:
        """A step of a phase is done; False asks TensorRT to stop."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = min(step + 1, phase.steps)
            self._tell()
        return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase is over, whether or not all its steps were."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._told = _PARTS - 1
                self._progress.update(LABEL, self._told, _PARTS)

    def complete(self) -> None:
        """The build is over: there may have been several outermost phases."""
        with self._lock:
            self._told = _PARTS
            self._progress.update(LABEL, _PARTS, _PARTS)

    @property
    def fraction(self) -> float:
        """The share of the outermost phase that is done, from 0 to 1."""
        return self._told / _PARTS

    def remaining_s(self) -> float | None:
        """Seconds to go at the pace so far; None while there is too little to judge by."""
        if self.fraction < _WORTH_ESTIMATING:
            return None
        elapsed = self._clock() - self._started
        return elapsed / self.fraction * (1.0 - self.fraction)

    def _tell(self) -> None:
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        if roots:
            share = int(_PARTS * self._share(roots[0]))
            before, self._told = self._told, max(self._told, min(share, _PARTS - 1))
            self._progress.update(LABEL, self._told, _PARTS)
            remaining = self.remaining_s()
            passed = self._told // _QUARTER > before // _QUARTER
            if passed and remaining is not None and remaining >= _WORTH_TELLING_S:
                self._progress.note(
                    f"{LABEL}: {self._told // 10} % done, {_spoken(remaining)} to go"
                )

    def _share(self, name: str) -> float:
        """Done steps of a phase, and within the current one what its inner phases did."""
        phase = self._phases[name]
        inner = [each for each, other in self._phases.items() if other.parent == name]
        within = max((self._share(each) for each in inner), default=0.0)
        return min((phase.done + within) / phase.steps, 1.0)


def _spoken(seconds: float) -> str:
    """An estimate as coarse as it is."""
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"


def tensorrt_monitor(module: Any, monitor: BuildMonitor) -> trt.IProgressMonitor:
    """The object that TensorRT calls. Nothing may be raised into its threads."""

    class Steps(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            _quietly(lambda: monitor.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            _quietly(lambda: monitor.step(phase_name, step))
            return not monitor.cancelled

        def phase_finish(self, phase_name: str) -> None:
            _quietly(lambda: monitor.finish(phase_name))

    def _quietly(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # a broken pipe under the bar, or Ctrl-C
            monitor.fail(error)

    return Steps()
