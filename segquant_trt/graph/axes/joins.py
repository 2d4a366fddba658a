"""Upstream through operators that join tensors.

| axis that is joined                         | outcome |
|---------------------------------------------|---------|
| outermost part of the traced channels       | Joined, or Through when one part holds them all |
| inner part of the traced channels           | Ended: the parts interleave |
| not traced                                  | Crossed, or Through when one part is selected   |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto

from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.axes.layout import Axis, Factor, Layout, is_marked, marked, plain_axis
from segquant_trt.graph.axes.outcome import Crossed, Ended, Joined, Outcome, Place, Through
from segquant_trt.graph.dims import Dim, product
from segquant_trt.graph.view import GraphView


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join:
    node: NodeProto
    axis: int
    names: tuple[str, ...]
    lengths: tuple[Dim | None, ...]
    adds_axis: bool  # the parts lack the axis

    def part(self, index: int, layout: Layout, factors: Axis) -> Place:
        """The part `index`, its joined axis laid out as `factors`."""
        before, after = layout[: self.axis], layout[self.axis + 1 :]
        middle = () if self.adds_axis else (factors,)
        return Place(self.names[index], (*before, *middle, *after))


def concat(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Concat."""
    axis = int_attribute(node, "axis", 0) % len(place.layout)
    names = tuple(name for name in node.input if name)
    return _joined(_Join(
        node=node, axis=axis, names=names, lengths=_lengths(names, axis, view), adds_axis=False
    ), place.layout)  # fmt: skip


def concat_from_sequence(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """ConcatFromSequence of tensors that are named one by one."""
    maker = view.wiring.producer.get(node.input[0])
    if maker is None or maker.op_type != "SequenceConstruct":
        return Ended(node=node, reason="the parts of a sequence are not known")
    axis = int_attribute(node, "axis", 0) % len(place.layout)
    names, stacks = tuple(maker.input), bool(int_attribute(node, "new_axis", 0))
    lengths: tuple[Dim | None, ...] = (1,) * len(names)
    if not stacks:
        lengths = _lengths(names, axis, view)
    join = _Join(node=node, axis=axis, names=names, lengths=lengths, adds_axis=stacks)
    return _joined(join, place.layout)


def _lengths(names: Sequence[str], axis: int, view: GraphView) -> tuple[Dim | None, ...]:
    shapes = [view.shapes.of(name) for name in names]
    return tuple(None if shape is None else shape[axis] for shape in shapes)


def _joined(join: _Join, layout: Layout) -> Outcome:
    factors = layout[join.axis]
    if not is_marked(factors):
        return _selected(join, layout) or _crossed(join, layout)
    factor, rest = factors[0], factors[1:]
    if factor.mark is None or any(other.mark is not None or not other.full for other in rest):
        return Ended(node=join.node, reason="the joined axis is shared with other indices")
    order = marked(layout)
    if order[0][0] != join.axis:
        return Ended(
            node=join.node,
            reason="the parts interleave: the joined axis is an inner part of the channels",
        )
    below = product(other.extent for other in rest)  # indices of the axis per traced channel
    lengths = _completed(join.lengths, factor.extent * below)
    inner = product(other.size for _, other in order[1:])
    if lengths is None or not isinstance(inner, int) or not isinstance(below, int):
        return Ended(node=join.node, reason="the length of a joined part is unknown")
    if any(length % below for length in lengths):
        return Ended(node=join.node, reason="the joined axis is shared with other indices")
    counts = tuple(length // below for length in lengths)
    cuts = _cuts(counts, factor)
    if cuts is None:
        return Ended(node=join.node, reason="the parts do not add up to the joined axis")
    parts = [
        (join.part(index, layout, (Factor(counts[index], factor.mark, start, size), *rest)), size)
        for index, start, size in cuts
    ]
    if len(parts) == 1:
        return Through(place=parts[0][0], nodes=(join.node,), keeps_values=True)
    return Joined(
        node=join.node,
        pieces=tuple(place for place, _ in parts),
        sizes=tuple(size * inner for _, size in parts),
        stacked=inner > 1 and all(length == 1 for length in lengths),
    )


def _completed(lengths: Sequence[Dim | None], total: Dim) -> tuple[int, ...] | None:
    """The lengths as integers; one that is unknown is what the others leave."""
    known = [length for length in lengths if isinstance(length, int)]
    missing = len(lengths) - len(known)
    if missing > 1 or (missing and not isinstance(total, int)):
        return None
    rest = total - sum(known) if isinstance(total, int) else 0
    if rest < 0:
        return None
    return tuple(length if isinstance(length, int) else rest for length in lengths)


def _cuts(lengths: Sequence[int], factor: Factor) -> list[tuple[int, int, int]] | None:
    """(part, start in it, size) of the pieces that the factor's window falls into."""
    if not isinstance(factor.start, int) or not isinstance(factor.size, int):
        return None
    if isinstance(factor.extent, int) and sum(lengths) != factor.extent:
        return None
    cuts, offset, last = [], 0, factor.start + factor.size
    for index, length in enumerate(lengths):
        low, high = max(factor.start, offset), min(last, offset + length)
        if low < high:
            cuts.append((index, low - offset, high - low))
        offset += length
    return cuts


def _selected(join: _Join, layout: Layout) -> Outcome | None:
    """The one part that a slice of the joined axis takes, if it takes but one."""
    factors = layout[join.axis]
    if len(factors) != 1 or factors[0].full:
        return None
    lengths = _completed(join.lengths, factors[0].extent)
    cuts = None if lengths is None else _cuts(lengths, factors[0])
    if lengths is None or cuts is None or len(cuts) != 1:
        return None
    index, start, size = cuts[0]
    window: Axis = () if lengths[index] == 1 else (Factor(lengths[index], None, start, size),)
    place = join.part(index, layout, window)
    return Through(place=place, nodes=(join.node,), keeps_values=True)


def _crossed(join: _Join, layout: Layout) -> Outcome:
    total = product(factor.extent for factor in layout[join.axis])
    places = tuple(
        join.part(index, layout, plain_axis(total if length is None else length))
        for index, length in enumerate(join.lengths)
    )
    if len(places) == 1:
        return Through(place=places[0], nodes=(join.node,), keeps_values=True)
    return Crossed(node=join.node, places=places, axis=join.axis)
