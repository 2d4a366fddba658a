"""Shapes behind operators that compute: contractions, reductions, pointwise ones, sequences."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto

from segquant_trt.graph.attributes import (
    int_attribute,
    ints_attribute,
    text_attribute,
)
from segquant_trt.graph.dims import Dim, exact, floor_divide, product
from segquant_trt.graph.shapes.knowledge import (
    Shape,
    Shapes,
    axis_attribute,
    has_input,
    unknown,
)
from segquant_trt.graph.shapes.movement import broadcast
from segquant_trt.graph.shapes.selection import split_sizes

Found = Sequence[Shape | None]


def same(node: NodeProto, shapes: Shapes) -> Found:
    """Output 0 has the shape of input 0."""
    return (shapes.of(node.input[0]),)


def joint(node: NodeProto, shapes: Shapes) -> Found:
    """All inputs broadcast together."""
    parts = [shapes.of(name) for name in node.input if name]
    shape: Shape = ()
    for part in parts:
        if part is None:
            return (None,)
        shape = broadcast(shape, part)
    return (shape,)


def matmul(node: NodeProto, shapes: Shapes) -> Found:
    """MatMul with batch broadcasting, vectors included."""
    left, right = shapes.of(node.input[0]), shapes.of(node.input[1])
    if left is None or right is None or not left or not right:
        return (None,)
    rows = left[-2:-1]
    columns = right[-1:] if len(right) > 1 else ()
    return ((*broadcast(left[:-2], right[:-2]), *rows, *columns),)


def gemm(node: NodeProto, shapes: Shapes) -> Found:
    """Gemm."""
    left, right = shapes.of(node.input[0]), shapes.of(node.input[1])
    rows = None if left is None else left[1 if int_attribute(node, "transA", 0) else 0]
    columns = None if right is None else right[0 if int_attribute(node, "transB", 0) else 1]
    return ((
        unknown(node, 0) if rows is None else rows,
        unknown(node, 1) if columns is None else columns,
    ),)  # fmt: skip


def conv(node: NodeProto, shapes: Shapes) -> Found:
    """Conv: output channels from the weight, space from the window."""
    source, weight = shapes.of(node.input[0]), shapes.of(node.input[1])
    if source is None or weight is None:
        return (None,)
    kernel = ints_attribute(node, "kernel_shape") or weight[2:]
    return ((source[0], weight[0], *_windows(node, source[2:], kernel)),)


def pool(node: NodeProto, shapes: Shapes) -> Found:
    """AveragePool, MaxPool, LpPool."""
    source = shapes.of(node.input[0])
    kernel = ints_attribute(node, "kernel_shape")
    if source is None or kernel is None:
        return (None,)
    return ((*source[:2], *_windows(node, source[2:], kernel)),)


def _windows(node: NodeProto, space: Shape, kernel: Sequence[Dim]) -> Shape:
    count = len(space)
    strides = ints_attribute(node, "strides") or (1,) * count
    dilations = ints_attribute(node, "dilations") or (1,) * count
    pads = ints_attribute(node, "pads") or (0,) * (2 * count)
    automatic = text_attribute(node, "auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        return tuple(
            -floor_divide(-dim, stride) for dim, stride in zip(space, strides, strict=True)
        )
    rounding = int_attribute(node, "ceil_mode", 0)
    dims: list[Dim] = []
    for axis, dim in enumerate(space):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        room = dim + (pads[axis] + pads[axis + count]) - reach + rounding * (strides[axis] - 1)
        steps = floor_divide(room, strides[axis])
        if not rounding:
            dims.append(steps + 1)
        elif isinstance(steps, int) and isinstance(dim, int):
            # The last window must not start in the padding behind the last element.
            dims.append(steps + (steps * strides[axis] < dim + pads[axis]))
        else:
            dims.append(unknown(node, axis))
    return tuple(dims)


def conv_transpose(node: NodeProto, shapes: Shapes) -> Found:
    """ConvTranspose: output channels from the weight; space is left unknown."""
    source, weight = shapes.of(node.input[0]), shapes.of(node.input[1])
    if source is None or weight is None:
        return (None,)
    space = (unknown(node, axis) for axis in range(2, len(source)))
    return ((source[0], weight[1] * int_attribute(node, "group", 1), *space),)


def global_pool(node: NodeProto, shapes: Shapes) -> Found:
    """Global pooling."""
    source = shapes.of(node.input[0])
    return (None if source is None else (*source[:2], *(1 for _ in source[2:])),)


def reduce_(node: NodeProto, shapes: Shapes) -> Found:
    """Reductions; axes are an attribute or an input."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    reduced = reduced_axes(node, len(source), shapes)
    if reduced is None:
        return (None,)
    if int_attribute(node, "keepdims", 1):
        return (tuple(1 if axis in reduced else dim for axis, dim in enumerate(source)),)
    return (tuple(dim for axis, dim in enumerate(source) if axis not in reduced),)


def reduced_axes(node: NodeProto, rank: int, shapes: Shapes) -> frozenset[int] | None:
    """The axes that a reduction sums over, or None when they are computed."""
    axes = shapes.axes_of(node, 1)
    if axes is None and has_input(node, 1):
        return None
    if not axes:
        nothing = int_attribute(node, "noop_with_empty_axes", 0)
        return frozenset() if nothing else frozenset(range(rank))
    return frozenset(axis % rank for axis in axes)


def arg_reduce(node: NodeProto, shapes: Shapes) -> Found:
    """ArgMax and ArgMin."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    axis = axis_attribute(node, len(source))
    kept: Shape = (1,) if int_attribute(node, "keepdims", 1) else ()
    return ((*source[:axis], *kept, *source[axis + 1 :]),)


def shape_of(node: NodeProto, shapes: Shapes) -> Found:
    """Shape: one element per axis in the range."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None,)
    return ((len(source[axis_range(node, len(source))]),),)


def axis_range(node: NodeProto, rank: int) -> slice:
    """The `start` and `end` of a Shape operator."""
    return slice(int_attribute(node, "start", 0), int_attribute(node, "end", rank))


def scalar(node: NodeProto, shapes: Shapes) -> Found:
    """A scalar."""
    return ((),)


def einsum(node: NodeProto, shapes: Shapes) -> Found:
    """Einsum without an ellipsis."""
    left, arrow, right = text_attribute(node, "equation", "").replace(" ", "").partition("->")
    if not arrow or "." in left:
        return (None,)
    lengths: dict[str, Dim] = {}
    for term, name in zip(left.split(","), node.input, strict=True):
        for letter, dim in zip(term, shapes.of(name) or (), strict=False):
            lengths.setdefault(letter, dim)
    return (tuple(lengths.get(letter, unknown(node, letter)) for letter in right),)


def attention(node: NodeProto, shapes: Shapes) -> Found:
    """Attention: as the query, with the value's head size."""
    query, value = shapes.of(node.input[0]), shapes.of(node.input[2])
    if query is None or value is None:
        return (None,)
    heads = int_attribute(node, "q_num_heads", 0)
    if len(query) == 4:
        return ((*query[:3], value[3]),)
    each = exact(value[-1], int_attribute(node, "kv_num_heads", heads or 1))
    return ((*query[:2], unknown(node, 2) if each is None else each * heads),)


def multi_head_attention(node: NodeProto, shapes: Shapes) -> Found:
    """ONNX Runtime's fused attention: [batch, sequence, width of the values]."""
    query, value = shapes.of(node.input[0]), None
    if has_input(node, 2):
        value = shapes.of(node.input[2])
    if query is None or value is None or len(query) != 3 or len(value) != 3:
        return (None,)
    return ((*query[:2], value[2]),)


def top_k(node: NodeProto, shapes: Shapes) -> Found:
    """TopK."""
    source = shapes.of(node.input[0])
    if source is None:
        return (None, None)
    axis = axis_attribute(node, len(source), default=-1)
    count = shapes.lengths(node.input[1])
    kept = count[0] if count else unknown(node, axis)
    shape = (*source[:axis], kept, *source[axis + 1 :])
    return (shape, shape)


def one_hot(node: NodeProto, shapes: Shapes) -> Found:
    """OneHot."""
    source, depth = shapes.of(node.input[0]), shapes.lengths(node.input[1])
    if source is None:
        return (None,)
    axis = int_attribute(node, "axis", -1) % (len(source) + 1)
    return ((*source[:axis], depth[0] if depth else unknown(node, axis), *source[axis:]),)


def non_zero(node: NodeProto, shapes: Shapes) -> Found:
    """NonZero: [rank, count]."""
    rank = shapes.rank(node.input[0])
    return (None if rank is None else (rank, unknown(node, 1)),)


def split_to_sequence(node: NodeProto, shapes: Shapes) -> Found:
    """SplitToSequence: the parts' shapes are kept aside."""
    source = shapes.of(node.input[0])
    if source is None:
        return ()
    axis = axis_attribute(node, len(source))
    sizes = sequence_sizes(node, source[axis], shapes)
    if sizes is None:
        return ()
    keeps = has_input(node, 1) or int_attribute(node, "keepdims", 1)
    shapes.sequences[node.output[0]] = tuple(
        (*source[:axis], *((size,) if keeps else ()), *source[axis + 1 :]) for size in sizes
    )
    return ()


def sequence_sizes(node: NodeProto, length: Dim, shapes: Shapes) -> tuple[Dim, ...] | None:
    """Lengths of a SplitToSequence's parts, or None when they are computed."""
    if not has_input(node, 1):
        return (1,) * length if isinstance(length, int) else None
    if shapes.rank(node.input[1]) != 0:
        return split_sizes(node, length, shapes)
    each = shapes.integers(node.input[1])
    if not each or not isinstance(length, int):
        return None
    full, rest = divmod(length, each[0])
    return (*(each[0],) * full, *((rest,) if rest else ()))


def sequence_construct(node: NodeProto, shapes: Shapes) -> Found:
    """SequenceConstruct."""
    shapes.sequences[node.output[0]] = tuple(shapes.of(name) for name in node.input)
    return ()


def sequence_at(node: NodeProto, shapes: Shapes) -> Found:
    """SequenceAt."""
    parts, position = shapes.sequences.get(node.input[0]), shapes.integers(node.input[1])
    if not parts:
        return (None,)
    return (parts[position[0] if position else 0],)


def concat_from_sequence(node: NodeProto, shapes: Shapes) -> Found:
    """ConcatFromSequence, joining or stacking."""
    parts = shapes.sequences.get(node.input[0])
    if not parts or parts[0] is None:
        return (None,)
    first = parts[0]
    if int_attribute(node, "new_axis", 0):
        axis = int_attribute(node, "axis", 0) % (len(first) + 1)
        return ((*first[:axis], len(parts), *first[axis:]),)
    axis = axis_attribute(node, len(first))
    total: Dim = 0
    for part in parts:
        total = unknown(node, axis) if part is None else total + part[axis]
    return ((*first[:axis], total, *first[axis + 1 :]),)


def element_count(shape: Shape) -> Dim:
    """How many elements a tensor of this shape has."""
    return product(shape)
