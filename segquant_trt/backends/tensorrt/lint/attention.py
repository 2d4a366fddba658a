"""Attention: the forms that become one kernel, and those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.decoded import Decoded, look_back
from segquant_trt.backends.tensorrt.lint.element_types import FLOAT8, INT8
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import attribute, float_attribute
from segquant_trt.graph.wiring import node_name

_WIDEST_HEAD = 256
_BETWEEN = frozenset(
    {"Mul", "Div", "Add", "Cast", "Reshape", "Where", "Identity", "QuantizeLinear",
     "DequantizeLinear", "Transpose", "Expand"}
)  # fmt: skip
_MOST_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attention:
    scores: NodeProto
    values: NodeProto


def _found(subject: Subject) -> Iterator[_Attention]:
    """MatMul -> ... -> Softmax -> ... -> MatMul, both of computed operands."""
    for softmax in subject.nodes("Softmax"):
        scores = _product(softmax, subject, forward=False)
        values = _product(softmax, subject, forward=True)
        if scores is not None and values is not None:
            yield _Attention(scores=scores, values=values)


def _product(node: NodeProto, subject: Subject, *, forward: bool) -> NodeProto | None:
    step: NodeProto | None = node
    for _ in range(_MOST_STEPS):
        assert step is not None
        step = _after(step, subject) if forward else _before(step, subject)
        if step is None:
            return None
        if step.op_type == "MatMul":
            both = all(name in subject.varying for name in step.input)
            return step if both else None
        if step.op_type not in _BETWEEN:
            return None
    return None


def _after(node: NodeProto, subject: Subject) -> NodeProto | None:
    readers = subject.wiring.consumers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 else None


def _before(node: NodeProto, subject: Subject) -> NodeProto | None:
    made = (subject.wiring.producer.get(name) for name in node.input)
    found = [maker for maker in made if maker is not None and maker.output[0] in subject.varying]
    deep = [maker for maker in found if maker.op_type in _BETWEEN or maker.op_type == "MatMul"]
    return next(iter([*deep, *found]), None)


def _codes(product: NodeProto, subject: Subject) -> list[int | None]:
    operands = [look_back(name, subject, product=product) for name in product.input[:2]]
    return [
        subject.types.get(operand.decode.input[0]) if isinstance(operand, Decoded) else None
        for operand in operands
    ]


def int8(subject: Subject) -> Iterator[Problem]:
    """Attention on INT8 codes."""
    for found in _found(subject):
        if INT8 in (*_codes(found.scores, subject), *_codes(found.values, subject)):
            yield Problem(
                node_name(found.values),
                "attention on INT8 codes is several kernels with the scores in memory between "
                "them, slower than one FP16 kernel",
                (node_name(found.scores),),
            )


def partial_fp8(subject: Subject) -> Iterator[Problem]:
    """Attention with some operands in FP8."""
    for found in _found(subject):
        codes = [*_codes(found.scores, subject), *_codes(found.values, subject)]
        if FLOAT8 in codes and set(codes) != {FLOAT8}:
            words = ("Q", "K", "the softmax", "V")
            plain = [word for word, kind in zip(words, codes, strict=True) if kind != FLOAT8]
            yield Problem(
                node_name(found.values),
                f"attention with {', '.join(plain)} not in FP8 is no fused kernel, neither FP8 "
                "nor FP16",
                (node_name(found.scores),),
            )


def float32(subject: Subject) -> Iterator[Problem]:
    """Attention that is computed in FP32."""
    for found in _found(subject):
        if subject.types.get(found.scores.output[0]) == TensorProto.FLOAT:
            yield Problem(
                node_name(found.values),
                "attention in FP32 is not fused: the scores go through memory",
                (node_name(found.scores),),
            )


def wide_heads(subject: Subject) -> Iterator[Problem]:
    """Heads that no fused kernel is made for."""
    for found in _found(subject):
        dims = subject.shapes.of(found.scores.input[0])
        width = dims[-1] if dims else None
        if isinstance(width, int) and width > _WIDEST_HEAD:
            yield Problem(
                node_name(found.values),
                f"heads of {width} channels; fused kernels exist up to {_WIDEST_HEAD}",
            )


def operator_float32(subject: Subject) -> Iterator[Problem]:
    """The operator `Attention` in FP32."""
    for node in subject.nodes("Attention"):
        if subject.types.get(node.input[0]) == TensorProto.FLOAT:
            yield Problem(node_name(node), "the operator Attention in FP32")


def operator_attributes(subject: Subject) -> Iterator[Problem]:
    """Attributes of `Attention` that the parser refuses."""
    for node in subject.nodes("Attention"):
        if float_attribute(node, "softcap", 0.0) != 0.0:
            yield Problem(node_name(node), "Attention with softcap")
        if attribute(node, "softmax_precision") is not None:
            yield Problem(node_name(node), "Attention with softmax_precision")


def operator_codes(subject: Subject) -> Iterator[Problem]:
    """Codes given to `Attention`, which decodes them first."""
    for node in subject.nodes("Attention"):
        operands = [look_back(name, subject, product=node) for name in node.input[:3]]
        if any(isinstance(operand, Decoded) for operand in operands):
            yield Problem(
                node_name(node), "its operands are decoded first: it is computed in 16 bits"
            )


RULES: tuple[Rule, ...] = (
    Rule(
        name="int8-attention",
        severity="slow",
        check=int8,
        fix="leave attention in FP16 or BF16 where the plan is INT8",
    ),
    Rule(
        name="partial-fp8-attention",
        severity="slow",
        check=partial_fp8,
        fix="quantise Q, K, the softmax (scale 1/448) and V, all to FP8, or none of them",
    ),
    Rule(
        name="fp32-attention",
        severity="slow",
        check=float32,
        fix="compute Q, K and V in FP16 or BF16; a softmax in FP32 between two Casts is fine",
    ),
    Rule(
        name="wide-attention-head",
        severity="slow",
        check=wide_heads,
        fix="nothing, if the model has such heads",
    ),
    Rule(
        name="attention-operator-fp32",
        severity="build-error",
        check=operator_float32,
        fix="cast its operands to FP16 or BF16, or write it as MatMul, Softmax, MatMul",
    ),
    Rule(
        name="attention-operator-attribute",
        severity="parse-error",
        check=operator_attributes,
        fix="remove the attribute, or write attention as MatMul, Softmax, MatMul",
    ),
    Rule(
        name="attention-operator-codes",
        severity="not-8-bit",
        check=operator_codes,
        fix="for FP8 attention write MatMul, Softmax, MatMul with Q/DQ on Q, K, softmax and V",
    ),
)
