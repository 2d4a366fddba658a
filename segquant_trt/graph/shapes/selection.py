"""Shapes behind operators that take part of an axis, and which part they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import NodeProto

from segquant_trt.graph.attributes import attribute, int_attribute, ints_attribute
from segquant_trt.graph.dims import Dim, Expr, exact, floor_divide
from segquant_trt.graph.shapes.knowledge import (
    Shape,
    Shapes,
    axis_attribute,
    has_input,
    unknown,
    whole,
)

Found = Sequence[Shape | None]


def split(node: NodeProto, shapes: Shapes) -> Found:
    """Split in given sizes, or equally (the last part may be smaller)."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,) * len(node.output)
    axis = axis_attribute(node, len(source))
    sizes = split_sizes(node, source[axis], shapes)
    return tuple(
        (*source[:axis], unknown(node, axis, index) if sizes is None else sizes[index],
         *source[axis + 1 :])
        for index in range(len(node.output))
    )  # fmt: skip


def split_sizes(node: NodeProto, length: Dim, shapes: Shapes) -> tuple[Dim, ...] | None:
    """Lengths of a Split's outputs, or None when they are computed."""
    if has_input(node, 1):
        return shapes.lengths(node.input[1]) or _known_parts(node, length, shapes)
    given = ints_attribute(node, "split")
    if given is not None:
        return given
    parts = int_attribute(node, "num_outputs", len(node.output))
    if isinstance(length, int):
        size = -(-length // parts)
        return (*(size,) * (parts - 1), length - size * (parts - 1))
    each = exact(length, parts)
    return None if each is None else (each,) * parts


def _known_parts(node: NodeProto, length: Dim, shapes: Shapes) -> tuple[Dim, ...] | None:
    """Lengths of a Split's outputs, from their shapes where these are known otherwise."""
    found = [shapes.of(name) for name in node.output]
    known = [shape for shape in found if shape is not None]
    if not known or len(known) < len(found):
        return None
    axis = axis_attribute(node, len(known[0]))
    sizes = [size for shape in known if isinstance(size := shape[axis], int)]
    complete = len(sizes) == len(found) and (isinstance(length, Expr) or sum(sizes) == length)
    return tuple(sizes) if complete else None


def slice_(node: NodeProto, shapes: Shapes) -> Found:
    """Slice."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    bounds = slice_bounds(node, source, shapes)
    if bounds is None:
        return (tuple(unknown(node, axis) for axis in range(len(source))),)
    dims = list(source)
    for axis, cut in bounds.items():
        dims[axis] = unknown(node, axis) if cut is None else cut[1]
    return (tuple(dims),)


def slice_bounds(
    node: NodeProto, source: Shape, shapes: Shapes
) -> dict[int, tuple[Dim, Dim, int] | None] | None:
    """(start, length, step) by sliced axis; None for bounds, or axes, that are computed."""
    raw = _slice_operands(node, source, shapes)
    if raw is None:
        return None
    starts, ends, axes, steps = raw
    cuts: dict[int, tuple[Dim, Dim, int] | None] = {}
    for index, axis in enumerate(axes):
        step = 1 if steps is None else steps[index]
        axis %= len(source)
        cut = _cut(starts[index], ends[index], step, source[axis]) if step else None
        if cut is None or cut != (0, source[axis], 1):
            cuts[axis] = cut
    return cuts


def _slice_operands(
    node: NodeProto, source: Shape, shapes: Shapes
) -> tuple[list[Any], list[Any], tuple[int, ...], tuple[int, ...] | None] | None:
    if attribute(node, "starts") is not None:  # opset 1
        first, last = ints_attribute(node, "starts") or (), ints_attribute(node, "ends") or ()
        axes = ints_attribute(node, "axes") or tuple(range(len(first)))
        return list(first), list(last), axes, None
    starts, ends = (_items(node, position, shapes) for position in (1, 2))
    given = shapes.axes_of(node, 3)
    if given is None and has_input(node, 3):
        return None
    count = len(starts or ends or source)
    axes = given if given is not None else tuple(range(count))
    steps = shapes.axes_of(node, 4, "steps")
    if steps is None and has_input(node, 4):
        steps = (0,) * len(axes)  # unknown
    none = [None] * len(axes)
    return starts or none, ends or none, axes, steps


def _items(node: NodeProto, position: int, shapes: Shapes) -> list[Any] | None:
    value = shapes.value(node.input[position])
    return None if value is None else list(value.reshape(-1))


def _cut(first: Any, last: Any, step: int, length: Dim) -> tuple[Dim, Dim, int] | None:
    if step < 0:
        whole_axis = whole(first) in (-1, None) and (whole(last) or 0) < -(2**30)
        return (0, length, step) if step == -1 and whole_axis else None
    start, end = _bound(first, length), _bound(last, length)
    if start is None or end is None:
        return None
    span = end - start
    if isinstance(span, int):
        span = max(span, 0)
    return start, span if step == 1 else floor_divide(span + (step - 1), step), step


def _bound(item: Any, length: Dim) -> Dim | None:
    """A slice bound as an offset in 0..length."""
    number = item if isinstance(item, Expr) else whole(item)
    if number is None:
        return None
    if isinstance(number, int):
        if number >= 2**30:
            return length
        if number < -(2**30):
            return 0
        position = number + length if number < 0 else number
        if isinstance(position, int) and isinstance(length, int):
            return min(max(position, 0), length)
        return position
    negative = all(factor < 0 for _, factor in number.terms)
    return number + length if negative else number


def gather(node: NodeProto, shapes: Shapes) -> Found:
    """Gather: the indices' shape in place of the axis."""
    source, indices = shapes.of(node.input[0]), shapes.of(node.input[1])
    if source is None or indices is None:
        return (None,)
    axis = axis_attribute(node, len(source))
    return ((*source[:axis], *indices, *source[axis + 1 :]),)


def gather_nd(node: NodeProto, shapes: Shapes) -> Found:
    """GatherND."""
    source, indices = shapes.of(node.input[0]), shapes.of(node.input[1])
    if source is None or indices is None or not isinstance(indices[-1], int):
        return (None,)
    batch = int_attribute(node, "batch_dims", 0)
    return ((*indices[:-1], *source[batch + indices[-1] :]),)
