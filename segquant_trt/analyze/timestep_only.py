"""Sites that depend on the timestep and constants alone, and where they leave that part."""

from __future__ import annotations

from collections.abc import Mapping

from segquant_trt.analyze.subject import Findings, Subject
from segquant_trt.graph.taint import value_operands
from segquant_trt.graph.view import GraphView
from segquant_trt.records import TimestepOnlySite


def find(subject: Subject) -> Findings:
    """Timestep-only sites; none when there is no timestep input."""
    if subject.timestep is None:
        return Findings()
    only = frozenset((subject.timestep,))
    dependence = subject.view.dependence
    sites = [site for site in subject.sites if dependence[site.activation] == only]
    values = _frontier_values(subject.view, only) if sites else {}
    order = {name: index for index, name in enumerate(values)}
    return Findings(
        timestep_only=tuple(
            TimestepOnlySite(
                site=site.name,
                values=tuple(sorted(values.get(site.output, ()), key=lambda name: order[name])),
            )
            for site in sites
        )
    )


def _frontier_values(view: GraphView, only: frozenset[str]) -> Mapping[str, frozenset[str]]:
    """For each tensor of the part, in graph order: frontier tensors that its values flow into.

    A frontier tensor is read by a node outside of the part, or is a graph output.
    """
    wiring = view.wiring
    inside = [name for name in view.dependence if view.dependence[name] == only]
    reached: dict[str, frozenset[str]] = {}
    for name in reversed(inside):
        onward: set[str] = {name} if name in wiring.graph_outputs else set()
        for reader in wiring.consumers.get(name, []):
            if name not in value_operands(reader):
                continue
            for output in filter(None, reader.output):
                outside = view.dependence[output] != only
                onward |= {name} if outside else reached.get(output, frozenset())
        reached[name] = frozenset(onward)
    return {name: reached[name] for name in inside}
