"""Values of small shape-like tensors, symbolic lengths included.

A value is a NumPy array of objects, so that NumPy's own indexing does most of the work. A
comparison of symbolic lengths that cannot be decided is `None` there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from segquant_trt.graph.attributes import has_default_domain, int_attribute
from segquant_trt.graph.dims import Expr, floor_divide, product
from segquant_trt.graph.shapes.arithmetic import axis_range, reduced_axes
from segquant_trt.graph.shapes.knowledge import Shapes, Value, axis_attribute, unknown, whole
from segquant_trt.graph.shapes.selection import slice_bounds, split_sizes
from segquant_trt.graph.wiring import permutation

_MOST_RANGE = 64
_UNDECIDED: Any = None  # a comparison of unknown lengths


def evaluate(node: NodeProto, shapes: Shapes) -> None:
    """Record the values of the node's outputs, where they follow from what is known."""
    rule = _RULES.get(node.op_type) if has_default_domain(node) else None
    if rule is None or len(node.output) == 0:
        return
    try:
        found = rule(node, shapes)
    except (IndexError, ValueError, TypeError, ZeroDivisionError, OverflowError):
        return
    values = found if isinstance(found, tuple) else (found,)
    for name, value in zip(node.output, values, strict=False):
        if value is not None and name:
            shapes.set_value(name, value)


Outcome = Value | tuple[Value, ...] | None


def _objects(items: list[Any]) -> Value:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _boxed(item: Any) -> Value:
    array = np.empty((), dtype=object)
    array[()] = item
    return array


def _shape(node: NodeProto, shapes: Shapes) -> Outcome:
    source = shapes.of(node.input[0])
    return None if source is None else _objects(list(source[axis_range(node, len(source))]))


def _size(node: NodeProto, shapes: Shapes) -> Outcome:
    source = shapes.of(node.input[0])
    return None if source is None else _boxed(product(source))


def _same(node: NodeProto, shapes: Shapes) -> Outcome:
    return shapes.value(node.input[0])


def _cast(node: NodeProto, shapes: Shapes) -> Outcome:
    value = shapes.value(node.input[0])
    if value is None:
        return None
    to = int_attribute(node, "to", 0)
    if to == TensorProto.BOOL:
        return _each(lambda item: None if isinstance(item, Expr) else bool(item), value)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    if to in floats:
        return _each(lambda item: item if isinstance(item, Expr) else float(item), value)
    return _each(lambda item: item if isinstance(item, Expr) else int(item), value)


def _each(function: Callable[..., Any], *operands: Value) -> Value:
    arrays = np.broadcast_arrays(*operands)
    flat = [function(*items) for items in zip(*(a.reshape(-1) for a in arrays), strict=True)]
    return _objects(flat).reshape(arrays[0].shape)


def _pointwise(function: Callable[..., Any]) -> Callable[[NodeProto, Shapes], Outcome]:
    def rule(node: NodeProto, shapes: Shapes) -> Outcome:
        operands = [shapes.value(name) for name in node.input if name]
        known = [operand for operand in operands if operand is not None]
        if len(known) < len(operands) or not known:
            return None
        return _each(lambda *items: None if _UNDECIDED in items else function(*items), *known)

    return rule


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, (int, np.integer)) and isinstance(right, (int, np.integer)):
        return int(left / right) if right else None  # towards zero, as ONNX
    if isinstance(left, Expr) or isinstance(right, Expr):
        divisor = right if isinstance(right, Expr) else whole(right)
        return None if divisor is None else floor_divide(left, divisor)
    return left / right


def _times(left: Any, right: Any) -> Any:
    if isinstance(left, Expr) or isinstance(right, Expr):
        first, second = _exactly(left), _exactly(right)
        return None if first is None or second is None else first * second
    return left * right


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, Expr) or isinstance(right, Expr):
        first, second = _exactly(left), _exactly(right)
        return None if first is None or second is None else first + second
    return left + right


def _exactly(item: Any) -> Any:
    return item if isinstance(item, Expr) else whole(item)


def _equal(left: Any, right: Any) -> Any:
    if not isinstance(left, Expr) and not isinstance(right, Expr):
        return left == right
    if left == right:
        return True
    number = right if isinstance(left, Expr) else left
    # Lengths are positive; whether one equals a given positive number is not known.
    return False if not isinstance(number, Expr) and number <= 0 else None


def _largest(*items: Any) -> Any:
    if any(isinstance(item, Expr) for item in items):
        rest = [item for item in items if isinstance(item, Expr) or item > 1]
        return rest[0] if len(set(rest)) == 1 else None
    return max(items)


def _smallest(*items: Any) -> Any:
    if any(isinstance(item, Expr) for item in items):
        return items[0] if len(set(items)) == 1 else None
    return min(items)


def _whole_part(item: Any) -> Any:
    return item if isinstance(item, Expr) else float(np.floor(item))


def _ceiling(item: Any) -> Any:
    return item if isinstance(item, Expr) else float(np.ceil(item))


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, Expr) or isinstance(right, Expr):
        return _plus(left, -1 * (floor_divide(left, right) * right))
    return left % right


def _where(node: NodeProto, shapes: Shapes) -> Outcome:
    operands = [shapes.value(name) for name in node.input]
    if any(operand is None for operand in operands):
        return None
    condition, yes, no = np.broadcast_arrays(*(o for o in operands if o is not None))
    flat: list[Any] = []
    choices = zip(condition.reshape(-1), yes.reshape(-1), no.reshape(-1), strict=True)
    for position, (chosen, first, second) in enumerate(choices):
        undecided = chosen is None and first != second
        flat.append(unknown(node, position) if undecided else first if chosen else second)
    return _objects(flat).reshape(condition.shape)


def _gather(node: NodeProto, shapes: Shapes) -> Outcome:
    source, indices = shapes.value(node.input[0]), shapes.value(node.input[1])
    if source is None or indices is None:
        return None
    picked: Any = source.take(indices.astype(np.int64), axis=int_attribute(node, "axis", 0))
    return np.asarray(picked, dtype=object) if isinstance(picked, np.ndarray) else _boxed(picked)


def _concat(node: NodeProto, shapes: Shapes) -> Outcome:
    parts = [shapes.value(name) for name in node.input]
    if all(part is None for part in parts):
        return None
    arrays = []
    for index, part in enumerate(parts):
        if part is None:
            shape = shapes.of(node.input[index])
            if shape is None or len(shape) != 1 or not isinstance(shape[0], int):
                return None
            part = _objects([unknown(node, f"{index}.{i}") for i in range(shape[0])])
        arrays.append(part)
    return np.concatenate(arrays, axis=int_attribute(node, "axis", 0))


def _slice(node: NodeProto, shapes: Shapes) -> Outcome:
    source = shapes.value(node.input[0])
    if source is None:
        return None
    cuts = slice_bounds(node, source.shape, shapes)
    if cuts is None:
        return None
    index: list[slice] = [slice(None)] * source.ndim
    for axis, cut in cuts.items():
        if cut is None or not isinstance(cut[0], int) or not isinstance(cut[1], int):
            return None
        start, length, step = cut
        index[axis] = (
            slice(None, None, -1) if step < 0 else slice(start, start + length * step, step)
        )
    return source[tuple(index)]


def _split(node: NodeProto, shapes: Shapes) -> Outcome:
    source = shapes.value(node.input[0])
    if source is None:
        return None
    axis = axis_attribute(node, source.ndim)
    sizes = split_sizes(node, source.shape[axis], shapes)
    known = [size for size in sizes or () if isinstance(size, int)]
    if sizes is None or len(known) < len(sizes):
        return None
    return tuple(np.split(source, np.cumsum(known)[:-1].tolist(), axis=axis))


def _reshaped(node: NodeProto, shapes: Shapes) -> Outcome:
    source, target = shapes.value(node.input[0]), shapes.of(node.output[0])
    if source is None or target is None or not all(isinstance(dim, int) for dim in target):
        return None
    return source.reshape([dim for dim in target if isinstance(dim, int)])


def _transposed(node: NodeProto, shapes: Shapes) -> Outcome:
    source = shapes.value(node.input[0])
    return None if source is None else source.transpose(permutation(node))


def _filled(node: NodeProto, shapes: Shapes) -> Outcome:
    target = shapes.of(node.output[0])
    known = [dim for dim in target or () if isinstance(dim, int)]
    if target is None or len(known) < len(target) or np.prod(known) > _MOST_RANGE:
        return None
    value = next((a.t for a in node.attribute if a.name == "value"), None)
    from onnx import numpy_helper

    item = numpy_helper.to_array(value).reshape(-1)[0].item() if value is not None else 0.0
    return _objects([item] * int(np.prod(known))).reshape(known)


def _expanded(node: NodeProto, shapes: Shapes) -> Outcome:
    source, target = shapes.value(node.input[0]), shapes.of(node.output[0])
    known = [dim for dim in target or () if isinstance(dim, int)]
    if source is None or target is None or len(known) < len(target):
        return None
    return np.broadcast_to(source, known)


def _range(node: NodeProto, shapes: Shapes) -> Outcome:
    bounds = [shapes.integers(name) for name in node.input]
    if any(bound is None for bound in bounds):
        return None
    numbers = list(range(*(bound[0] for bound in bounds if bound is not None)))
    return _objects(numbers) if len(numbers) <= _MOST_RANGE else None


def _one_hot(node: NodeProto, shapes: Shapes) -> Outcome:
    indices, depth = shapes.integers(node.input[0]), shapes.integers(node.input[1])
    choices, shape = shapes.value(node.input[2]), shapes.of(node.output[0])
    if indices is None or not depth or choices is None or shape is None:
        return None
    if len(shape) != 2 or int_attribute(node, "axis", -1) not in (1, -1):
        return None
    off, on = choices.reshape(-1)
    rows = [[on if column == index % depth[0] else off for column in range(depth[0])]
            for index in indices]  # fmt: skip
    return np.array(rows, dtype=object)


def _reduced(node: NodeProto, shapes: Shapes) -> Outcome:
    source = shapes.value(node.input[0])
    if source is None or reduced_axes(node, source.ndim, shapes) != frozenset(range(source.ndim)):
        return None
    flat = [_exactly(item) for item in source.reshape(-1)]
    if any(item is None for item in flat):
        return None
    total = product(flat) if node.op_type == "ReduceProd" else sum(flat, start=0)
    kept = int_attribute(node, "keepdims", 1)
    return _boxed(total).reshape((1,) * source.ndim if kept else ())


_RULES: Mapping[str, Callable[[NodeProto, Shapes], Outcome]] = {
    "Shape": _shape,
    "Size": _size,
    "Cast": _cast,
    "Where": _where,
    "Gather": _gather,
    "OneHot": _one_hot,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Transpose": _transposed,
    "Range": _range,
    **dict.fromkeys(("Identity", "CastLike"), _same),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape", "Flatten"), _reshaped),
    **dict.fromkeys(("ReduceProd", "ReduceSum"), _reduced),
    "Add": _pointwise(_plus),
    "Sub": _pointwise(lambda left, right: _plus(left, _times(right, -1))),
    "Mul": _pointwise(_times),
    "Div": _pointwise(_divide),
    "Mod": _pointwise(_modulo),
    "Neg": _pointwise(lambda item: item * -1),
    "Max": _pointwise(_largest),
    "Min": _pointwise(_smallest),
    "Floor": _pointwise(_whole_part),
    "Ceil": _pointwise(_ceiling),
    "Equal": _pointwise(_equal),
    "Not": _pointwise(lambda item: not item),
}
