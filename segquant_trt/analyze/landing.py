"""From a tensor whose axis is divided, upstream to the sites whose output channels it divides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from onnx import NodeProto

from segquant_trt.graph.axes import Crossed, Ended, Factor, Mixed, Place, Through, marked, step_back
from segquant_trt.graph.dims import product
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.view import GraphView
from segquant_trt.records import LinearSite

_MOST_MIXED = 1  # a sum of two linears is followed into both, a residual stream is not
_LONGEST = 200
_NEAR = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """Index `i` of the divided axis is the output channels from `base + unit * i` on.

    `nodes` lead from the site to the division; `tensors` are passed on the way.
    """

    site: LinearSite
    base: int
    unit: int
    nodes: tuple[NodeProto, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A site was reached, but its channels are not divided into contiguous parts."""

    site: LinearSite
    rejection: Rejection


@dataclass(frozen=True, slots=True)
class _Way:
    """What was passed since the division."""

    tensors: tuple[str, ...] = ()
    nodes: tuple[NodeProto, ...] = ()
    mixed: int = 0

    def passing(self, tensor: str | None, *nodes: NodeProto) -> _Way:
        tensors = self.tensors if tensor is None else (*self.tensors, tensor)
        return replace(self, tensors=tensors, nodes=(*self.nodes, *nodes))

    def mixing(self, node: NodeProto) -> _Way:
        return replace(self.passing(None, node), mixed=self.mixed + 1)


_AT_DIVISION = _Way()


def landings(
    place: Place,
    outputs: Mapping[str, LinearSite],
    view: GraphView,
    *,
    way: _Way = _AT_DIVISION,
) -> Iterator[Landing | Missed]:
    """The sites upstream of `place`; `outputs` maps their output tensors."""
    while place.tensor not in outputs and len(way.tensors) < _LONGEST:
        outcome = step_back(place, view)
        way = way.passing(place.tensor)
        match outcome:
            case Through(place=source, nodes=nodes):
                place, way = source, way.passing(None, *nodes)
            case Crossed(node=node, places=places):
                for part in places:
                    yield from landings(part, outputs, view, way=way.passing(None, node))
                return
            case Mixed(node=node, places=places) if way.mixed < _MOST_MIXED:
                for part in places:
                    yield from landings(part, outputs, view, way=way.mixing(node))
                return
            case Ended(node=node, reason=reason, beyond=beyond) if reason and node is not None:
                for site in _whose(node, beyond, outputs, view):
                    yield Missed(site=site, rejection=rejected(reason, node))
                return
            case _:
                return
    if place.tensor in outputs:
        yield from _landed(outputs[place.tensor], place, way.passing(place.tensor))


def _landed(site: LinearSite, place: Place, way: _Way) -> Iterator[Landing | Missed]:
    channel_axis = 1 if site.op == "Conv" else len(place.layout) - 1
    axes = {axis for axis, _ in marked(place.layout)}
    if channel_axis not in axes:
        return  # tokens or rows are divided
    if len(axes) > 1:
        reason = "the divided axis mixes output channels with other indices"
        yield Missed(site=site, rejection=rejected(reason, *way.nodes[-1:]))
        return
    grid = _grid(place.layout[channel_axis])
    if isinstance(grid, Rejection):
        yield Missed(site=site, rejection=rejected(grid.reason, *way.nodes[-1:]))
        return
    base, unit = grid.value
    yield Landing(site=site, base=base, unit=unit, nodes=way.nodes, tensors=way.tensors)


def _grid(axis: tuple[Factor, ...]) -> Match[tuple[int, int]] | Rejection:
    """(base, unit) of the marked factor among the output channels."""
    position = next(index for index, factor in enumerate(axis) if factor.mark is not None)
    outer, divided, inner = axis[:position], axis[position], axis[position + 1 :]
    contiguous = all(factor.size == 1 for factor in outer)
    if not contiguous or any(factor.mark is not None for factor in inner):
        return Rejection("each part takes some channels of every group: parts interleave")
    if not all(factor.full for factor in inner):
        return Rejection("each part takes but some of the channels of its group")
    unit = product(factor.extent for factor in inner)
    base = divided.start * unit
    below = divided.extent * unit
    for factor in reversed(outer):
        base = base + factor.start * below
        below = below * factor.extent
    if not isinstance(base, int) or not isinstance(unit, int):
        return Rejection("the length of a part is unknown")
    return Match((base, unit))


def _whose(
    node: NodeProto, beyond: Place | None, outputs: Mapping[str, LinearSite], view: GraphView
) -> Iterator[LinearSite]:
    """The sites whose channels were lost at `node`."""
    if beyond is not None:
        yield from (found.site for found in landings(beyond, outputs, view))
        return
    nearest = _nearest(node, outputs, view)
    if nearest is not None:
        yield nearest


def _nearest(
    node: NodeProto, outputs: Mapping[str, LinearSite], view: GraphView
) -> LinearSite | None:
    """The first site upstream along first operands: whom a lost way would have led to."""
    for _ in range(_NEAR):
        if not node.input:
            return None
        site = outputs.get(node.input[0])
        maker = view.wiring.producer.get(node.input[0])
        if site is not None or maker is None:
            return site
        node = maker
    return None
