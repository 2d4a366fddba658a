"""Along which axis of a product's operand a weight's scales lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnx import NodeProto

from segquant_trt.backends.tensorrt.lint.decoded import Decoded
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.dims import Dim
from segquant_trt.graph.wiring import permutation

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def scale_axis(operand: Decoded, subject: Subject) -> int | None:
    """The operand's axis that its several scales lie along; None where a reshape regroups it."""
    decode = operand.decode
    dims = subject.shapes.of(decode.input[0])
    if not dims:
        return None
    axis: int | None = int_attribute(decode, "axis", 1) % len(dims)
    for node in operand.path:
        if axis is None:
            return None
        after = subject.shapes.of(node.output[0])
        axis = _moved(axis, node, dims, after)
        if after is None:
            return None
        dims = after
    return axis


def _moved(
    axis: int, node: NodeProto, dims: Sequence[Dim], after: Sequence[Dim] | None
) -> int | None:
    if node.op_type == "Transpose":
        order = permutation(node) or tuple(reversed(range(len(dims))))
        return order.index(axis)
    if after is None:
        return None
    if node.op_type in _RESHAPES:
        return _reshaped(axis, dims, after)
    if node.op_type == "Gather" and len(after) == len(dims) - 1:
        gone = int_attribute(node, "axis", 0) % len(dims)
        return None if gone == axis else axis - (gone < axis)
    return axis if len(after) == len(dims) else axis + len(after) - len(dims)


def _reshaped(axis: int, dims: Sequence[Dim], after: Sequence[Dim]) -> int | None:
    old, new = _whole(dims), _whole(after)
    if old is None or new is None:
        return None
    before = math.prod(old[:axis])
    return next(
        (
            place
            for place, length in enumerate(new)
            if length == old[axis] and math.prod(new[:place]) == before
        ),
        None,
    )


def _whole(dims: Sequence[Dim]) -> list[int] | None:
    lengths = [length for length in dims if isinstance(length, int)]
    return lengths if len(lengths) == len(dims) else None
