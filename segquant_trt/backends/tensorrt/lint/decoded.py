"""Look back from a product's operand to the DequantizeLinear that it comes from.

| between DequantizeLinear and product                | seen through                          |
|-----------------------------------------------------|---------------------------------------|
| Reshape, Transpose, Slice, Split, Gather, Expand... | yes: codes can be moved instead       |
| Identity, Dropout, Cast there and back              | yes                                   |
| Cast from FP32 to 16 bits                           | by TensorRT-RTX                       |
| Mul or Div by one constant number, Neg              | by TensorRT-RTX                       |
| Mul or Div of a weight by a number per output channel | by TensorRT-RTX                     |
| Concat of tensors decoded with one equal scale      | yes                                   |
| Pad before a convolution                            | yes: it becomes the convolution's own |
| anything else                                       | no                                    |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.element_types import type_name
from segquant_trt.backends.tensorrt.lint.output_axis import output_axis
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.shapes.knowledge import Shape
from segquant_trt.graph.wiring import node_name

MOVES = frozenset(
    {"Identity", "Dropout", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
     "Transpose", "Slice", "Split", "Gather", "Expand", "Tile"}
)  # fmt: skip
_JOINS = frozenset({"Concat"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """An operand that is `path` of the output of `decode`; the path is in data-flow order."""

    decode: NodeProto
    path: tuple[NodeProto, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """An operand that codes lead to, but not so that the product can take the codes."""

    cause: str
    reason: str
    nodes: tuple[str, ...]


Operand = Decoded | Hidden | None


def look_back(name: str, subject: Subject, *, product: NodeProto) -> Operand:
    """Where the tensor `name` comes from; None when no codes lead to it."""
    operand, path = name, list[NodeProto]()
    while True:
        node = subject.wiring.producer.get(name)
        if node is None:
            return None
        if node.op_type == "DequantizeLinear":
            cast = _converted(node.output[0], operand, subject)
            return cast or Decoded(decode=node, path=tuple(reversed(path)))
        if node.op_type in _JOINS:
            return _joined(node, subject, product, path)
        through = _carried(node, subject, product)
        if through is None:
            return _hidden(node, subject)
        path.append(node)
        name = through


def _carried(node: NodeProto, subject: Subject, product: NodeProto) -> str | None:
    """The operand whose codes could be moved, scaled or padded instead of what they stand for."""
    if not node.input:
        return None
    if node.op_type in MOVES:
        return node.input[0]
    if node.op_type == "Pad" and product.op_type == "Conv":
        return node.input[0]
    if subject.target != "tensorrt-rtx":
        return None
    if node.op_type == "Neg":
        return node.input[0]
    if node.op_type in ("Mul", "Div") and _factor(node.input[1], node, subject, product):
        return node.input[0]
    if node.op_type == "Mul" and _factor(node.input[0], node, subject, product):
        return node.input[1]
    return None


def _factor(name: str, node: NodeProto, subject: Subject, product: NodeProto) -> bool:
    """Whether scales can take the factor `name` up: one number, or one per output channel."""
    if name not in subject.foldable:
        return False
    dims, whole = subject.shapes.of(name), subject.rank(node.output[0])
    if dims is not None and all(length == 1 for length in dims):
        return True
    if dims is None or whole is None:
        return False
    long = [axis + whole - len(dims) for axis, length in enumerate(dims) if length != 1]
    made = node.output[0]
    if made not in subject.foldable or made not in product.input[:2]:
        return False
    scales = _scales_behind(node, subject)
    several = scales is not None and any(length != 1 for length in scales)
    place = list(product.input).index(made)
    fits = long == [output_axis(product, place, subject)]
    return fits and (several or product.op_type == "Conv")


def _scales_behind(node: NodeProto, subject: Subject) -> Shape | None:
    makers = (subject.wiring.producer.get(name) for name in node.input)
    decodes = [m for m in makers if m is not None and m.op_type == "DequantizeLinear"]
    return subject.shapes.of(decodes[0].input[1]) if decodes else None


def _converted(made: str, operand: str, subject: Subject) -> Hidden | None:
    """Casts in between that stay, because scales of the first type cannot stand for the second."""
    kinds = [subject.types.get(name) for name in (made, operand)]
    if kinds[0] == kinds[1] or None in kinds:
        return None
    if subject.target == "tensorrt-rtx" and kinds[0] == TensorProto.FLOAT:
        return None
    words = " to ".join(type_name(kind) for kind in kinds if kind)
    return Hidden(
        cause="between",
        reason=f"a Cast from {words} stands between DequantizeLinear and the product",
        nodes=(operand,),
    )


def _joined(
    node: NodeProto, subject: Subject, product: NodeProto, path: list[NodeProto]
) -> Operand:
    parts = [look_back(name, subject, product=product) for name in node.input]
    decoded = [part for part in parts if isinstance(part, Decoded)]
    if not decoded:
        return next((part for part in parts if part is not None), None)
    where = (node_name(node),)
    if len(decoded) < len(parts):
        return Hidden(
            cause="concat-partial",
            reason=f"Concat joins {len(decoded)} decoded tensors with {len(parts) - len(decoded)} "
            "that are not",
            nodes=where,
        )
    if all(part.decode.input[0] in subject.foldable for part in decoded):
        return Hidden(cause="weight-concat", reason="Concat joins decoded constants", nodes=where)
    if len({scale_key(part.decode, subject) for part in decoded}) > 1:
        return Hidden(
            cause="concat-scales",
            reason="Concat joins tensors that are decoded with different scales",
            nodes=where,
        )
    return Decoded(decode=decoded[0].decode, path=(*decoded[0].path, node, *reversed(path)))


def scale_key(decode: NodeProto, subject: Subject) -> object:
    """Equal for two DequantizeLinear whose outputs can be joined as codes."""
    codes = subject.types.get(decode.input[0])
    codes = TensorProto.INT8 if codes == TensorProto.UINT8 else codes
    values = subject.values(decode.input[1])
    if values is None:
        return codes, decode.input[1]
    return codes, values.shape, np.asarray(values, dtype=np.float32).tobytes()


def _hidden(node: NodeProto, subject: Subject) -> Hidden | None:
    """Codes behind one operator that can not be applied to them."""
    for name in node.input:
        source = subject.wiring.producer.get(name)
        while source is not None and source.op_type in MOVES:
            source = subject.wiring.producer.get(source.input[0])
        if source is not None and source.op_type == "DequantizeLinear":
            return Hidden(
                cause="between",
                reason=f"{node.op_type} stands between DequantizeLinear and the product",
                nodes=(node_name(node),),
            )
    return None
