"""Attention: the forms that become one kernel, and those that do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.decoded import Decoded, look_back
from segquant_trt.backends.tensorrt.lint.element_types import FLOAT8, INT8
from segquant_trt.backends.tensorrt.lint.finding import RTX
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.scales import LARGEST_CODE
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import attribute, float_attribute
from segquant_trt.graph.wiring import node_name

_WIDEST_HEAD = 256
_LEAST_FP8_KEYS = 32
_NEARLY_ONE = 0.99
# The one INT8 kernel: its output is coded too, without a mask.
_INT8_HEADS = (16, 32, 64)
_MOST_INT8_KEYS = 512
_BETWEEN = frozenset(
    {"Mul", "Div", "Add", "Cast", "Reshape", "Where", "Identity", "QuantizeLinear",
     "DequantizeLinear", "Transpose", "Expand"}
)  # fmt: skip
_MOST_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attention:
    scores: NodeProto
    values: NodeProto
    masked: bool


def _found(subject: Subject) -> Iterator[_Attention]:
    """MatMul -> ... -> Softmax -> ... -> MatMul, both of computed operands."""
    for softmax in subject.nodes("Softmax"):
        before = _way(softmax, subject, forward=False)
        behind = _way(softmax, subject, forward=True)
        if before and behind:
            masked = any(step.op_type in ("Add", "Where") for step in before)
            yield _Attention(scores=before[-1], values=behind[-1], masked=masked)


def _way(node: NodeProto, subject: Subject, *, forward: bool) -> list[NodeProto]:
    """The steps to a product of two computed operands; none where there is no such product."""
    steps: list[NodeProto] = []
    step: NodeProto | None = node
    while step is not None and len(steps) < _MOST_STEPS:
        step = _after(step, subject) if forward else _before(step, subject)
        if step is None:
            break
        steps.append(step)
        if step.op_type == "MatMul":
            return steps if all(name in subject.varying for name in step.input) else []
        if step.op_type not in _BETWEEN:
            break
    return []


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


def _lengths(found: _Attention, subject: Subject) -> tuple[int | None, int | None]:
    """Number of keys and width of a head, where the graph fixes them."""
    queries, keys = (subject.shapes.of(name) for name in found.scores.input[:2])
    tokens = keys[-1] if keys else None
    width = queries[-1] if queries else None
    return (
        tokens if isinstance(tokens, int) else None,
        width if isinstance(width, int) else None,
    )


def _has_int8_kernel(found: _Attention, subject: Subject) -> bool:
    codes = {*_codes(found.scores, subject), *_codes(found.values, subject)}
    keys, width = _lengths(found, subject)
    small = keys is not None and keys <= _MOST_INT8_KEYS and width in _INT8_HEADS
    reader = _after(found.values, subject)
    while reader is not None and reader.op_type in ("Transpose", "Reshape"):
        reader = _after(reader, subject)
    coded = reader is not None and subject.types.get(reader.output[0]) == INT8
    return codes == {INT8} and small and coded and not found.masked


def int8(subject: Subject) -> Iterator[Problem]:
    """Attention on INT8 codes."""
    for found in _found(subject):
        if _has_int8_kernel(found, subject):
            continue
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


def short_fp8(subject: Subject) -> Iterator[Problem]:
    """FP8 attention to few keys."""
    for found in _found(subject):
        keys, _ = _lengths(found, subject)
        short = keys is not None and keys < _LEAST_FP8_KEYS
        if short and FLOAT8 in _codes(found.scores, subject):
            yield Problem(
                node_name(found.values),
                f"FP8 attention to {keys} keys is not fused; it is from {_LEAST_FP8_KEYS} on",
            )


def narrow_softmax(subject: Subject) -> Iterator[Problem]:
    """Codes that do not reach the largest value of a softmax."""
    for node in subject.nodes("QuantizeLinear"):
        maker = subject.wiring.producer.get(node.input[0])
        largest = LARGEST_CODE.get(subject.types.get(node.output[0], 0))
        scale = subject.values(subject.operand(node, 1))
        if maker is None or maker.op_type != "Softmax" or scale is None or largest is None:
            continue
        top = float(scale.astype("float32").max()) * largest
        if top < _NEARLY_ONE:
            yield Problem(node_name(node), f"its largest code stands for {top:.3g}, not for 1")


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
        _, width = _lengths(found, subject)
        if width is not None and width > _WIDEST_HEAD:
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
        fix="leave attention in FP16 or BF16 where the plan is INT8; up to 512 keys and with "
        "heads of 16, 32 or 64 channels, one INT8 kernel exists if its output is quantised too",
    ),
    Rule(
        name="short-fp8-attention",
        severity="slow",
        check=short_fp8,
        fix="leave it in 16 bits",
        targets=RTX,
    ),
    Rule(
        name="narrow-softmax",
        severity="advice",
        check=narrow_softmax,
        fix="use the scale 1/448 for FP8 and 1/127 for INT8",
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
