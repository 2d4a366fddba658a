"""Shapes behind operators that move, select or join elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import NodeProto

from segquant_trt.graph.attributes import attribute, int_attribute, ints_attribute, text_attribute
from segquant_trt.graph.dims import Dim, Expr, exact, floor_divide, product, symbol
from segquant_trt.graph.shapes.knowledge import (
    Shape,
    Shapes,
    axis_attribute,
    has_input,
    unknown,
    whole,
)

Found = Sequence[Shape | None]


def reshape(node: NodeProto, shapes: Shapes) -> Found:
    """Reshape with 0 (copy, unless allowzero) and -1 (the rest)."""
    source = shapes.of(node.input[0])
    target = shapes.value(node.input[1])
    if target is None:
        length = shapes.of(node.input[1])
        if length is None or not isinstance(length[0], int):
            return (None,)
        return (tuple(unknown(node, axis) for axis in range(length[0])),)
    copies = not int_attribute(node, "allowzero", 0)
    dims: list[Dim | None] = []
    for axis, item in enumerate(target.reshape(-1)):
        number = whole(item)
        if number == 0 and copies and source is not None and axis < len(source):
            dims.append(source[axis])
        elif number == -1:
            dims.append(None)
        else:
            dims.append(_length(item, node, axis))
    return (_filled(dims, source, node),)


def _filled(dims: Sequence[Dim | None], source: Shape | None, node: NodeProto) -> Shape:
    rest = None if source is None else _quotient(source, [dim for dim in dims if dim is not None])
    return tuple(
        dim if dim is not None else unknown(node, axis) if rest is None else rest
        for axis, dim in enumerate(dims)
    )


def _quotient(dividend: Sequence[Dim], divisor: Sequence[Dim]) -> Dim | None:
    """`prod(dividend) / prod(divisor)`, equal lengths cancelled first."""
    left, right = list(dividend), []
    for dim in divisor:
        if dim in left:
            left.remove(dim)
        else:
            right.append(dim)
    return exact(product(left), product(right))


def _length(item: Any, node: NodeProto, axis: int) -> Dim:
    if isinstance(item, Expr):
        return item
    number = whole(item)
    return unknown(node, axis) if number is None else number


def flatten(node: NodeProto, shapes: Shapes) -> Found:
    """Flatten to two axes."""
    source = shapes.of(node.input[0])
    if source is None:
        return ((unknown(node, 0), unknown(node, 1)),)
    axis = int_attribute(node, "axis", 1)
    axis = axis + len(source) if axis < 0 else axis
    return ((product(source[:axis]), product(source[axis:])),)


def transpose(node: NodeProto, shapes: Shapes) -> Found:
    """Transpose."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    order = ints_attribute(node, "perm") or tuple(reversed(range(len(source))))
    return (tuple(source[axis] for axis in order),)


def squeeze(node: NodeProto, shapes: Shapes) -> Found:
    """Squeeze: the named axes, or all of length 1 when none is named."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    axes = shapes.axes_of(node, 1)
    if axes is None:
        named = has_input(node, 1)
        return (None if named else tuple(dim for dim in source if dim != 1),)
    dropped = {axis % len(source) for axis in axes}
    return (tuple(dim for axis, dim in enumerate(source) if axis not in dropped),)


def unsqueeze(node: NodeProto, shapes: Shapes) -> Found:
    """Unsqueeze."""
    source, axes = shapes.of(node.input[0]), shapes.axes_of(node, 1)
    if source is None or axes is None:
        return (None,)
    rank = len(source) + len(axes)
    added = {axis % rank for axis in axes}
    rest = iter(source)
    return (tuple(1 if axis in added else next(rest) for axis in range(rank)),)


def expand(node: NodeProto, shapes: Shapes) -> Found:
    """Expand by broadcasting."""
    source, target = shapes.of(node.input[0]), shapes.value(node.input[1])
    if source is None or target is None:
        return (None,)
    wanted = tuple(_length(item, node, axis) for axis, item in enumerate(target.reshape(-1)))
    return (broadcast(source, wanted),)


def broadcast(left: Shape, right: Shape) -> Shape:
    """The common shape; a known length beats an unknown one, which might be 1."""
    rank = max(len(left), len(right))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (left, right)]
    return tuple(_wider(first, second) for first, second in zip(*padded, strict=True))


def _wider(first: Dim, second: Dim) -> Dim:
    if first == 1 or first == second:
        return second
    if second == 1 or isinstance(first, int):
        return first
    return second if isinstance(second, int) else symbol(f"max({first}, {second})")


def tile(node: NodeProto, shapes: Shapes) -> Found:
    """Tile."""
    source = shapes.of(node.input[0])
    repeats = shapes.lengths(node.input[1])
    if source is None:
        return (None,)
    if repeats is None:
        return (tuple(unknown(node, axis) for axis in range(len(source))),)
    return (tuple(dim * times for dim, times in zip(source, repeats, strict=True)),)


def concat(node: NodeProto, shapes: Shapes) -> Found:
    """Concat: the joined axis adds up, known lengths win elsewhere."""
    parts = [shapes.of(name) for name in node.input if name]
    known = [part for part in parts if part is not None]
    if not known:
        return (None,)
    rank = len(known[0])
    axis = axis_attribute(node, rank)
    total: Dim = 0
    for part in parts:
        total = total + part[axis] if part is not None else unknown(node, axis)
        if part is None:
            break
    shape = known[0]
    for part in known[1:]:
        pairs = zip(shape, part, strict=True)
        shape = tuple(first if isinstance(first, int) else second for first, second in pairs)
    return ((*shape[:axis], total, *shape[axis + 1 :]),)


def space_to_depth(node: NodeProto, shapes: Shapes) -> Found:
    """SpaceToDepth and its inverse."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    block = int_attribute(node, "blocksize", 1)
    batch, channels, *space = source
    if node.op_type == "SpaceToDepth":
        return ((batch, channels * block**2, *(floor_divide(dim, block) for dim in space)),)
    return ((batch, floor_divide(channels, block**2), *(dim * block for dim in space)),)


def pad(node: NodeProto, shapes: Shapes) -> Found:
    """Pad."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    amounts = paddings(node, len(source), shapes)
    if amounts is None:
        return (tuple(unknown(node, axis) for axis in range(len(source))),)
    return (tuple(dim + amounts.get(axis, 0) for axis, dim in enumerate(source)),)


def paddings(node: NodeProto, rank: int, shapes: Shapes) -> dict[int, Dim] | None:
    """Total padding by axis, or None when it is computed."""
    amounts = shapes.lengths(node.input[1]) if has_input(node, 1) else ints_attribute(node, "pads")
    if amounts is None:
        return None
    axes = shapes.integers(node.input[3]) if has_input(node, 3) else tuple(range(rank))
    if axes is None:
        return None
    half = len(axes)
    return {axis % rank: amounts[i] + amounts[i + half] for i, axis in enumerate(axes)}


def resize(node: NodeProto, shapes: Shapes) -> Found:
    """Resize and Upsample by scales or sizes."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    rank = len(source)
    axes = ints_attribute(node, "axes") or tuple(range(rank))
    dims = list(source)
    sizes = shapes.lengths(node.input[3]) if has_input(node, 3) else None
    scales = _scales(node, shapes)
    policy = text_attribute(node, "keep_aspect_ratio_policy", "stretch")
    for index, axis in enumerate(axes):
        axis %= rank
        if sizes is not None and policy == "stretch":
            dims[axis] = sizes[index]
        elif scales is not None and whole(scales[index]) is not None:
            dims[axis] = dims[axis] * int(scales[index])
        elif scales is not None and isinstance(length := dims[axis], int):
            dims[axis] = int(length * float(scales[index]))
        else:
            dims[axis] = unknown(node, axis)
    return (tuple(dims),)


def _scales(node: NodeProto, shapes: Shapes) -> list[Any] | None:
    given = attribute(node, "scales")
    if given is not None:
        return list(given.floats)
    position = 1 if node.op_type == "Upsample" or len(node.input) == 2 else 2
    value = shapes.value(node.input[position]) if has_input(node, position) else None
    return list(value.reshape(-1)) if value is not None and value.size else None


def constant_of_shape(node: NodeProto, shapes: Shapes) -> Found:
    """A tensor of the shape that the operand says."""
    target = shapes.value(node.input[0])
    if target is None:
        return (None,)
    return (tuple(_length(item, node, axis) for axis, item in enumerate(target.reshape(-1))),)


def range_(node: NodeProto, shapes: Shapes) -> Found:
    """Range."""
    bounds = [shapes.lengths(name) for name in node.input]
    if all(bound is not None and len(bound) == 1 for bound in bounds):
        start, limit, step = (bound[0] for bound in bounds if bound is not None)
        if isinstance(step, int) and step > 0:
            return ((floor_divide(limit - start + (step - 1), step),),)
    return ((unknown(node, 0),),)
