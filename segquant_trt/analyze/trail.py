"""Following traced channels upstream as long as each comes from one tensor."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from segquant_trt.graph.axes import Ended, Outcome, Place, Through, step_back, traced_axis
from segquant_trt.graph.view import GraphView
from segquant_trt.records import LinearSite

_LONGEST = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """The way from `start` upstream; `outcome` is what the next step would be: never Through."""

    start: Place
    steps: tuple[Through, ...]
    outcome: Outcome

    @property
    def end(self) -> Place:
        """The last place reached."""
        return self.steps[-1].place if self.steps else self.start

    @property
    def keeps_values(self) -> bool:
        """Whether the end's values arrive at the start unchanged."""
        return all(step.keeps_values for step in self.steps)

    @property
    def nodes(self) -> tuple[NodeProto, ...]:
        """The nodes passed, from the start upstream."""
        return tuple(node for step in self.steps for node in step.nodes)


def follow(place: Place, view: GraphView) -> Trail:
    """Walk upstream from `place` until channels part, mix or end."""
    steps: list[Through] = []
    outcome = step_back(place, view)
    while isinstance(outcome, Through) and len(steps) < _LONGEST:
        steps.append(outcome)
        outcome = step_back(outcome.place, view)
    if isinstance(outcome, Through):
        outcome = Ended(node=None)
    return Trail(start=place, steps=tuple(steps), outcome=outcome)


class Trails:
    """Trails from the inputs of sites; sites that read one tensor share it."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._known: dict[tuple[str, int, int], Trail | None] = {}

    def of_input(self, site: LinearSite) -> Trail | None:
        """The trail of a site's contraction axis; None when its input has no known rank."""
        shape = self._view.shapes.of(site.activation)
        if not shape:
            return None
        axis = 1 if site.op == "Conv" else len(shape) - 1
        key = (site.activation, axis, site.in_features)
        if key not in self._known:
            dims = (*shape[:axis], site.in_features, *shape[axis + 1 :])
            self._known[key] = follow(Place(site.activation, traced_axis(dims, axis)), self._view)
        return self._known[key]
