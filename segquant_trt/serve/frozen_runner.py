"""A graph with tables for some timesteps, and what runs at all others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from segquant_trt.backends import Runner
from segquant_trt.errors import SegQuantError
from segquant_trt.records import FrozenSteps, TensorSpec
from segquant_trt.records.step_rows import missed_steps
from segquant_trt.serve.inputs import Array


class FrozenRunner:
    """Runs the graph with tables, unless a sample is at another step than they hold.

    Then the whole call goes to the fallback, which is opened when it is first needed.

    Args:
        frozen: the steps.
        runner: of the graph with tables.
        fallback: opens the graph without; None where the bundle has none.
    """

    def __init__(
        self, frozen: FrozenSteps, runner: Runner, fallback: Callable[[], Runner] | None
    ) -> None:
        self.fallback_calls = 0
        self._frozen = frozen
        self._runner = runner
        self._open = fallback
        self._opened: Runner | None = None
        self._lock = threading.Lock()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, in order."""
        return self._runner.inputs

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name; all of them unless `outputs` says which.

        Raises:
            SegQuantError: a timestep is not among the frozen ones and there is no fallback.
        """
        missed = missed_steps(self._frozen, inputs[self._frozen.timestep])
        if not missed.size:
            return self._runner.run(inputs, outputs)
        if self._open is None:
            steps = self._frozen.timesteps
            raise SegQuantError(
                f"timestep {missed[0]:g} is not among the {len(steps)} that this bundle was frozen "
                f"to ({self._frozen.schedule}): {', '.join(f'{step:g}' for step in steps)}",
                hint="set the pipeline's scheduler and steps to this schedule, or compile with "
                "another --freeze-schedule, or without --no-fallback",
            )
        return self._fallback(self._open).run(inputs, outputs)

    def _fallback(self, opened: Callable[[], Runner]) -> Runner:
        with self._lock:
            self.fallback_calls += 1
            if self._opened is None:
                self._opened = opened()
            return self._opened
