"""Nodes that take part of an axis: which indices, into which tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import NodeProto

from segquant_trt.graph.attributes import has_default_domain, int_attribute
from segquant_trt.graph.axes.movement import gathered_start
from segquant_trt.graph.dims import Dim
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.shapes import Shape
from segquant_trt.graph.shapes.arithmetic import sequence_sizes
from segquant_trt.graph.shapes.selection import slice_bounds, split_sizes
from segquant_trt.graph.view import GraphView

_SELECTORS = frozenset(("Split", "SplitToSequence", "Slice", "Gather"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`tensor` is the indices `start` to `start + size` of the source's axis."""

    start: int
    size: int
    tensor: str
    node: NodeProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A tensor and an axis of it that some nodes take parts of."""

    tensor: str
    axis: int


def selections(view: GraphView) -> Mapping[Source, Sequence[Match[Selection] | Rejection]]:
    """All selections from varying tensors, by what they select from, in graph order."""
    found: dict[Source, list[Match[Selection] | Rejection]] = defaultdict(list)
    for node in view.wiring.nodes:
        if node.op_type not in _SELECTORS or not has_default_domain(node):
            continue
        shape = view.shapes.of(node.input[0])
        if not shape or not view.varies(node.input[0]):
            continue
        for axis, selection in _selected(node, shape, view):
            found[Source(tensor=node.input[0], axis=axis)].append(selection)
    return found


Selected = Iterator[tuple[int, Match[Selection] | Rejection]]


def _selected(node: NodeProto, shape: Shape, view: GraphView) -> Selected:
    match node.op_type:
        case "Slice":
            yield from _sliced(node, shape, view)
        case "Gather":
            yield from _gathered(node, shape, view)
        case "Split":
            axis = int_attribute(node, "axis", 0) % len(shape)
            sizes = split_sizes(node, shape[axis], view.shapes)
            parts = _parts(node, sizes, dict(enumerate(node.output)))
            yield from ((axis, part) for part in parts)
        case _:
            axis = int_attribute(node, "axis", 0) % len(shape)
            sizes = sequence_sizes(node, shape[axis], view.shapes)
            parts = _parts(node, sizes, _elements(node, len(sizes or ()), view))
            yield from ((axis, part) for part in parts)


def _parts(
    node: NodeProto, sizes: tuple[Dim, ...] | None, tensors: Mapping[int, str]
) -> Iterator[Match[Selection] | Rejection]:
    if sizes is None or not all(isinstance(size, int) for size in sizes):
        yield rejected("the sizes of the split are computed", node)
        return
    start = 0
    for index, size in enumerate(size for size in sizes if isinstance(size, int)):
        if size > 0:
            tensor = tensors.get(index, "")
            yield Match(Selection(start=start, size=size, tensor=tensor, node=node))
        start += size


def _elements(node: NodeProto, count: int, view: GraphView) -> Mapping[int, str]:
    """Tensors that SequenceAt takes from the sequence, by position."""
    tensors: dict[int, str] = {}
    for reader in view.wiring.consumers.get(node.output[0], []):
        position = view.shapes.integers(reader.input[1]) if len(reader.input) > 1 else None
        if reader.op_type == "SequenceAt" and position and count:
            tensors.setdefault(position[0] % count, reader.output[0])
    return tensors


def _sliced(node: NodeProto, shape: Shape, view: GraphView) -> Selected:
    cuts = slice_bounds(node, shape, view.shapes)
    if cuts is None:
        return
    for axis, cut in cuts.items():
        if cut is None:
            yield axis, rejected("the bounds of the slice are computed", node)
        elif cut[2] != 1:
            yield axis, rejected(f"the slice takes every {abs(cut[2])}th channel or reverses", node)
        elif isinstance(cut[0], int) and isinstance(cut[1], int):
            yield (
                axis,
                Match(Selection(start=cut[0], size=cut[1], tensor=node.output[0], node=node)),
            )
        else:
            yield axis, rejected("the bounds of the slice are computed", node)


def _gathered(node: NodeProto, shape: Shape, view: GraphView) -> Selected:
    axis = int_attribute(node, "axis", 0) % len(shape)
    start = gathered_start(node, shape[axis], view)
    indices = view.shapes.integers(node.input[1])
    if start is None or indices is None:
        yield axis, rejected("channels are gathered by computed or scattered indices", node)
        return
    yield axis, Match(Selection(start=start, size=len(indices), tensor=node.output[0], node=node))
