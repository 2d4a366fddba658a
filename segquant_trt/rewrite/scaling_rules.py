"""Multiply a tensor by a vector per channel without a node: by what it is computed from.

| producer                                       | what takes the vector                          |
|------------------------------------------------|------------------------------------------------|
| LayerNormalization, RMSNormalization           | scale and bias, on the last axis               |
| Group-, Instance- and BatchNormalization       | scale and bias, on the second axis             |
| Add, Sub, Sum                                  | every operand                                  |
| Mul, Div                                       | a constant factor, else one operand            |
| MatMul, Gemm, Conv with a constant weight      | output channels of the weight, and the bias    |
| Concat                                         | every operand; its own part on the same axis   |
| Split                                          | its input, with ones for the other parts       |
| Cast, Identity, Dropout                        | the input                                      |
| Transpose, Squeeze, Unsqueeze, Reshape         | the input, if channels stay together           |

Every tensor on the way must be read by the next node alone. Where the way ends at a tensor of one
row per sample (adaLN's shift and scale), a Mul of that small tensor does.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from segquant_trt.graph.attributes import int_attribute, ints_attribute
from segquant_trt.rewrite.scaling import Edits, Float, Rule, Scaling


def _norm(scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int) -> Edits | None:
    """Scale and bias; a norm over channels takes them on the last axis, others on the second."""
    dims = scaling.shape(node.output[0])
    last = node.op_type in ("LayerNormalization", "RMSNormalization")
    if dims is None or len(dims) + axis != (len(dims) - 1 if last else 1):
        return None
    if not last and scaling.shape(node.input[1]) != vector.shape:
        return None  # GroupNormalization before opset 21 had one scale per group
    given = [index for index in (1, 2) if index < len(node.input) and node.input[index]]
    return scaling.every(node, given, vector, -1)


def _sum(scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int) -> Edits | None:
    whole = all(
        scaling.length(name, axis) == len(vector) or scaling.shape(name) in ((), (1,))
        for name in node.input
    )
    return scaling.every(node, range(len(node.input)), vector, axis) if whole else None


def _factor(scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int) -> Edits | None:
    """Constants first, then whatever has all channels."""
    allowed = (0, 1) if node.op_type == "Mul" else (0,)
    whole = [i for i in allowed if scaling.length(node.input[i], axis) == len(vector)]
    whole.sort(key=lambda i: not scaling.is_constant(node.input[i]))
    attempts = (scaling.operand(node, index, vector, axis) for index in whole)
    return next((found for found in attempts if found is not None), None)


def _product(
    scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int
) -> Edits | None:
    dims = scaling.shape(node.output[0])
    channels = 1 if node.op_type == "Conv" else -1
    if dims is None or len(dims) + axis != channels % len(dims):
        return None
    transposed = node.op_type == "Gemm" and int_attribute(node, "transB", 0) == 1
    found = scaling.weight(node, vector, 0 if node.op_type == "Conv" or transposed else 1)
    if found is None or len(node.input) < 3 or not node.input[2]:
        return found
    bias = scaling.operand(node, 2, vector, -1)
    return None if bias is None else found.extend(bias)


def _concat(scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int) -> Edits | None:
    dims = scaling.shape(node.output[0])
    if dims is None:
        return None
    if int_attribute(node, "axis", 0) % len(dims) != len(dims) + axis:
        return scaling.every(node, range(len(node.input)), vector, axis)
    edits, start = Edits(), 0
    for index, name in enumerate(node.input):
        length = scaling.length(name, axis)
        if not isinstance(length, int):
            return None
        part = vector[start : start + length]
        found = Edits() if (part == 1.0).all() else scaling.operand(node, index, part, axis)
        if found is None:
            return None
        edits.extend(found)
        start += length
    return edits


def _split(scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int) -> Edits | None:
    """Ones for the parts that are not asked for."""
    dims = scaling.shape(name)
    if dims is None or int_attribute(node, "axis", 0) % len(dims) != len(dims) + axis:
        return None
    parts = []
    for output in node.output:
        length = scaling.length(output, axis)
        if not isinstance(length, int):
            return None
        parts.append(vector if output == name else np.ones(length, dtype=np.float32))
    return scaling.operand(node, 0, np.concatenate(parts), axis)


def _same(scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int) -> Edits | None:
    return scaling.operand(node, 0, vector, axis)


def _through(
    scaling: Scaling, node: NodeProto, name: str, vector: Float, axis: int
) -> Edits | None:
    before, after = scaling.shape(node.input[0]), scaling.shape(node.output[0])
    if before is None or after is None:
        return None
    position = len(after) + axis
    if node.op_type == "Transpose":
        order = ints_attribute(node, "perm") or tuple(reversed(range(len(after))))
        return scaling.operand(node, 0, vector, order[position] - len(before))
    # Channels stay together where all that follows them is the same.
    if before[axis:] != after[axis:]:
        return None
    return scaling.operand(node, 0, vector, axis)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "GroupNormalization"), _norm),
    **dict.fromkeys(("InstanceNormalization", "BatchNormalization"), _norm),
    **dict.fromkeys(("Add", "Sub", "Sum"), _sum),
    **dict.fromkeys(("Mul", "Div"), _factor),
    **dict.fromkeys(("MatMul", "Gemm", "Conv"), _product),
    **dict.fromkeys(("Transpose", "Squeeze", "Unsqueeze", "Reshape"), _through),
    **dict.fromkeys(("Cast", "Identity", "Dropout"), _same),
    "Concat": _concat,
    "Split": _split,
}
