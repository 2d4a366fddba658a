"""Upstream through operators that move or select elements."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from segquant_trt.graph.attributes import int_attribute, text_attribute
from segquant_trt.graph.axes.layout import (
    Axis,
    Layout,
    is_marked,
    normalized,
    plain_axis,
    regrouped,
    traced_axis,
    windowed,
)
from segquant_trt.graph.axes.outcome import Ended, Outcome, Place, Through
from segquant_trt.graph.dims import Dim, floor_divide
from segquant_trt.graph.shapes import Shape
from segquant_trt.graph.shapes.arithmetic import reduced_axes, sequence_sizes
from segquant_trt.graph.shapes.movement import paddings
from segquant_trt.graph.shapes.selection import slice_bounds, split_sizes
from segquant_trt.graph.view import GraphView
from segquant_trt.graph.wiring import permutation


def moved(
    tensor: str, layout: Sequence[Axis], *nodes: NodeProto, keeps_values: bool = True
) -> Through:
    """The outcome of a step that only moves elements."""
    place = Place(tensor, normalized(tuple(layout)))
    return Through(place=place, nodes=nodes, keeps_values=keeps_values)


def lost(
    node: NodeProto, reason: str, shape: Shape | None = None, axis: int | None = None
) -> Ended:
    """The outcome of a step that cannot be followed; `axis` of the operand holds the channels."""
    if shape is None or axis is None:
        return Ended(node=node, reason=reason)
    beyond = Place(node.input[0], traced_axis(shape, axis))
    return Ended(node=node, reason=reason, beyond=beyond)


def source_shape(node: NodeProto, view: GraphView) -> Shape | Ended:
    """The first operand's shape, or the outcome when it is unknown."""
    shape = view.shapes.of(node.input[0])
    return lost(node, f"the shape of '{node.input[0]}' is unknown") if shape is None else shape


_READABLE = 60
RESHAPES = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze"))


def reshape(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Reshape, Flatten, Squeeze, Unsqueeze: the same elements under other axes.

    Where one alone cannot be followed, it may be together with the reshapes before it.
    """
    nodes = [node]
    while True:
        source = source_shape(nodes[-1], view)
        if isinstance(source, Ended):
            return source
        layout = regrouped(place.layout, source)
        if layout is not None:
            return moved(nodes[-1].input[0], layout, *nodes)
        before = view.wiring.producer.get(nodes[-1].input[0])
        if before is None or before.op_type not in RESHAPES:
            break
        nodes.append(before)
    shown = ", ".join(map(str, view.shapes.of(node.input[0]) or ()))
    known = f" of [{shown}]" if len(shown) <= _READABLE else ""
    return lost(node, f"{node.op_type}{known} regroups the channels")


def transpose(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Transpose."""
    order = permutation(node) or tuple(reversed(range(len(place.layout))))
    return moved(node.input[0], _permuted_back(place.layout, order), node)


def _permuted_back(layout: Layout, order: Sequence[int]) -> Layout:
    source: list[Axis] = [()] * len(order)
    for position, axis in enumerate(order):
        source[axis] = layout[position]
    return tuple(source)


def expand(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Expand."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    layout = aligned(place.layout, source)
    if layout is None:
        return Ended(node=node)  # one value serves many channels
    return moved(node.input[0], layout, node)


def aligned(layout: Layout, source: Shape) -> Layout | None:
    """The layout of a broadcast operand; None when it lacks some of the traced channels."""
    missing = len(layout) - len(source)
    if missing < 0 or any(is_marked(axis) for axis in layout[:missing]):
        return None
    axes: list[Axis] = []
    for axis, dim in zip(layout[missing:], source, strict=True):
        if dim == 1 and is_marked(axis):
            return None
        axes.append(() if dim == 1 else axis)
    return tuple(axes)


def tile(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Tile: a repeated axis is not followed when it is traced."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    repeats = view.shapes.lengths(node.input[1])
    axes: list[Axis] = []
    for index, (axis, dim) in enumerate(zip(place.layout, source, strict=True)):
        once = repeats is not None and repeats[index] == 1
        if is_marked(axis) and not once:
            return Ended(node=node)
        axes.append(axis if once else plain_axis(dim))
    return moved(node.input[0], axes, node)


def slice_(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Slice: a window of the operand's axis."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    cuts = slice_bounds(node, source, view.shapes)
    if cuts is None:
        return lost(node, "the sliced axes are computed")
    axes = list(place.layout)
    for index, cut in cuts.items():
        torn = cut is None or cut[2] != 1
        window = None if cut is None or torn else windowed(axes[index], cut[0], source[index])
        if window is None and is_marked(axes[index]):
            reason = "the bounds of the slice are computed" if torn else _TORN
            return lost(node, reason, source, index)
        axes[index] = plain_axis(source[index]) if window is None else window
    return moved(node.input[0], axes, node)


_TORN = "the slice cuts through groups of channels"


def split(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """One output of a Split."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    axis = int_attribute(node, "axis", 0) % len(source)
    sizes = split_sizes(node, source[axis], view.shapes)
    return _part(node, place, axis, list(node.output).index(place.tensor), sizes, source)


def _part(
    node: NodeProto,
    place: Place,
    axis: int,
    index: int,
    sizes: tuple[Dim, ...] | None,
    source: Shape,
    *nodes: NodeProto,
) -> Outcome:
    if sizes is None:
        if is_marked(place.layout[axis]):
            return lost(node, "the sizes of the split are computed", source, axis)
        window: Axis | None = None
    else:
        start: Dim = 0
        for size in sizes[:index]:
            start = start + size
        window = windowed(place.layout[axis], start, source[axis])
    if window is None and is_marked(place.layout[axis]):
        return lost(node, _TORN, source, axis)
    axes = list(place.layout)
    axes[axis] = plain_axis(source[axis]) if window is None else window
    return moved(node.input[0], axes, node, *nodes)


def sequence_at(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """SequenceAt of a SplitToSequence or a SequenceConstruct."""
    maker = view.wiring.producer.get(node.input[0])
    position = view.shapes.integers(node.input[1])
    if maker is None or not position:
        return lost(node, "the element of the sequence is computed")
    if maker.op_type == "SequenceConstruct":
        return moved(maker.input[position[0]], place.layout, node, maker)
    if maker.op_type != "SplitToSequence":
        return Ended(node=node)
    source = source_shape(maker, view)
    if isinstance(source, Ended):
        return source
    axis = int_attribute(maker, "axis", 0) % len(source)
    sizes = sequence_sizes(maker, source[axis], view.shapes)
    index = position[0] if position[0] >= 0 or sizes is None else position[0] + len(sizes)
    if len(place.layout) < len(source):  # keepdims=0
        place = Place(place.tensor, (*place.layout[:axis], (), *place.layout[axis:]))
    return _part(maker, place, axis, index, sizes, source, node)


def gather(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Gather by a constant index, or by consecutive ones; by any along an untraced axis."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    axis = int_attribute(node, "axis", 0) % len(source)
    picked = len(place.layout) - len(source) + 1  # axes that the indices put in its place
    middle = place.layout[axis : axis + picked]
    window = _gathered(node, middle, source[axis], view)
    if window is None:
        if any(map(is_marked, middle)):
            reason = "channels are gathered by computed or scattered indices"
            return lost(node, reason, source, axis)
        window = plain_axis(source[axis])
    axes = (*place.layout[:axis], window, *place.layout[axis + picked :])
    return moved(node.input[0], axes, node)


def _gathered(node: NodeProto, middle: Sequence[Axis], length: Dim, view: GraphView) -> Axis | None:
    start = gathered_start(node, length, view)
    if start is None or len(middle) > 1:
        return None
    return windowed(middle[0] if middle else (), start, length)


def gathered_start(node: NodeProto, length: Dim, view: GraphView) -> int | None:
    """The first of a Gather's indices when they are constant and consecutive, else None."""
    indices = view.shapes.integers(node.input[1])
    if not indices:
        return None
    first = indices[0]
    if first < 0:
        if not isinstance(length, int):
            return None
        indices = tuple(index + length for index in indices)
        first = indices[0]
    return first if indices == tuple(range(first, first + len(indices))) else None


def resize(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Resize and Upsample: traced axes must keep their length. Only nearest keeps values."""
    nearest = text_attribute(node, "mode", "nearest") == "nearest"
    return spatial(node, place, view, keeps_values=nearest)


def pad(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Pad: traced axes must not be padded."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    amounts = paddings(node, len(place.layout), view.shapes)
    for index, axis in enumerate(place.layout):
        if is_marked(axis) and (amounts is None or amounts.get(index, 0) != 0):
            return lost(node, "the channels are padded", source, index)
    return moved(node.input[0], _spatial_axes(place, source), node)


def spatial(
    node: NodeProto, place: Place, view: GraphView, *, keeps_values: bool = False
) -> Outcome:
    """Operators that change the length of untraced axes: pooling, resizing."""
    source, target = source_shape(node, view), view.shapes.of(place.tensor)
    if isinstance(source, Ended):
        return source
    for index, axis in enumerate(place.layout):
        if is_marked(axis) and (target is None or target[index] != source[index]):
            return Ended(node=node)
    axes = _spatial_axes(place, source)
    return moved(node.input[0], axes, node, keeps_values=keeps_values)


def _spatial_axes(place: Place, source: Shape) -> list[Axis]:
    return [
        axis if is_marked(axis) else plain_axis(dim)
        for axis, dim in zip(place.layout, source, strict=True)
    ]


def space_to_depth(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """SpaceToDepth and DepthToSpace as the reshape, transpose and reshape that they are."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    block = int_attribute(node, "blocksize", 1)
    batch, channels, height, width = source
    if node.op_type == "SpaceToDepth":
        inner: Shape = (
            batch, channels, floor_divide(height, block), block, floor_divide(width, block), block
        )  # fmt: skip
        order = (0, 3, 5, 1, 2, 4)
    elif text_attribute(node, "mode", "DCR") == "DCR":
        inner = (batch, block, block, floor_divide(channels, block**2), height, width)
        order = (0, 3, 4, 1, 5, 2)
    else:
        inner = (batch, floor_divide(channels, block**2), block, block, height, width)
        order = (0, 1, 4, 2, 5, 3)
    outer = regrouped(place.layout, tuple(inner[axis] for axis in order))
    layout = None if outer is None else regrouped(_permuted_back(outer, order), source)
    if layout is None:
        return lost(node, f"{node.op_type} cannot be followed")
    return moved(node.input[0], layout, node)


def einsum(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """Einsum of one operand: a transposition, if nothing is summed."""
    left, _, right = text_attribute(node, "equation", "").replace(" ", "").partition("->")
    if len(node.input) > 1 or sorted(left) != sorted(right) or len(set(left)) < len(left):
        return Ended(node=node)
    order = tuple(left.index(letter) for letter in right)
    return moved(node.input[0], _permuted_back(place.layout, order), node)


def reduction(node: NodeProto, place: Place, view: GraphView) -> Outcome:
    """A reduction over untraced axes."""
    source = source_shape(node, view)
    if isinstance(source, Ended):
        return source
    reduced = reduced_axes(node, len(source), view.shapes)
    if reduced is None:
        return lost(node, "the reduced axes are computed")
    kept = iter(place.layout)
    keeps = int_attribute(node, "keepdims", 1)
    axes: list[Axis] = []
    for index, dim in enumerate(source):
        if index not in reduced:
            axes.append(next(kept))
            continue
        axes.append(plain_axis(dim))
        if keeps and is_marked(next(kept)):
            return Ended(node=node)
    return moved(node.input[0], axes, node, keeps_values=False)
