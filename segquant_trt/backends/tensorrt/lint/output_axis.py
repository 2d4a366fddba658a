"""Along which axis of a product's operand its output channels lie."""

from __future__ import annotations

from onnx import NodeProto

from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import int_attribute


def output_axis(node: NodeProto, place: int, subject: Subject) -> int | None:
    """The axis of the operand at `place` that output channels lie along; None for a vector."""
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            turned = int_attribute(node, ("transA", "transB")[place], 0)
            return (1 if turned else 0) if place == 0 else (0 if turned else 1)
        case _:
            rank = subject.rank(node.input[place])
            return None if rank is None or rank < 2 else rank - 1 if place else rank - 2
