"""Scales: positive, finite, as many as the axis is long, in a type that can hold them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.element_types import FLOAT8, FLOATS, INT4, type_name
from segquant_trt.backends.tensorrt.lint.finding import RTX
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import PAIR, Array, Subject
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.shapes.knowledge import Shape
from segquant_trt.graph.wiring import node_name

LARGEST_CODE: dict[int, float] = {TensorProto.INT8: 127.0, FLOAT8: 448.0, INT4: 7.0}
_SMALLEST_NORMAL_FLOAT16 = 2.0**-14
_LARGEST_FLOAT16 = 65504.0
# (what, element types, since which version of ONNX's operators)
_SINCE = (
    ("scales of 16 bits", frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16}), 1, 19),
    ("FP8 codes", frozenset({FLOAT8}), 2, 19),
    ("codes of four bits", frozenset({INT4, TensorProto.UINT4}), 2, 21),
)


def _known(subject: Subject) -> Iterator[tuple[NodeProto, Array]]:
    for node in subject.nodes(*PAIR):
        values = subject.values(subject.operand(node, 1))
        if values is not None and values.size:
            yield node, np.asarray(values, dtype=np.float32)


def not_positive(subject: Subject) -> Iterator[Problem]:
    """Zero, negative and NaN; zero is what a small FP32 scale becomes in FP16."""
    for node, values in _known(subject):
        bad = values[~(values > 0)]
        if bad.size:
            kind = subject.types.get(node.input[1])
            small = kind == TensorProto.FLOAT16 and float(bad.flat[0]) == 0.0
            why = "; below 3e-8 a scale underflows to 0 in FP16" if small else ""
            many = f"{bad.size} of {values.size} scales are" if values.size > 1 else "its scale is"
            yield Problem(
                node_name(node),
                f"{many} {float(bad.flat[0]):g}, not positive{why}",
                (node.input[1],),
            )


def not_finite(subject: Subject) -> Iterator[Problem]:
    """Infinite scales, which pass the parser."""
    for node, values in _known(subject):
        if np.isposinf(values).any():
            yield Problem(
                node_name(node), "a scale is infinite: it decodes to NaN", (node.input[1],)
            )


def overflow(subject: Subject) -> Iterator[Problem]:
    """Codes that decode to more than FP16 holds."""
    for node, values in _known(subject):
        codes = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
        largest = LARGEST_CODE.get(subject.types.get(codes, 0))
        if largest is None or subject.types.get(node.input[1]) != TensorProto.FLOAT16:
            continue
        top = float(values.max()) * largest
        if _LARGEST_FLOAT16 < top < np.inf:
            yield Problem(
                node_name(node),
                f"its largest code stands for {top:g}, more than FP16 holds",
                (node.input[1],),
            )


def subnormal(subject: Subject) -> Iterator[Problem]:
    """FP16 scales with fewer bits than FP16 has."""
    for node, values in _known(subject):
        if subject.types.get(node.input[1]) != TensorProto.FLOAT16:
            continue
        small = values[(values > 0) & (values < _SMALLEST_NORMAL_FLOAT16)]
        if small.size:
            error = 2.0**-25 / float(small.min())
            yield Problem(
                node_name(node),
                f"{small.size} of {values.size} scales are below 6.1e-5, where FP16 rounds by up "
                f"to {100 * error:.2g} %",
                (node.input[1],),
            )


def count(subject: Subject) -> Iterator[Problem]:
    """Scales that do not fit the axis that they are said to lie along."""
    for node in subject.nodes(*PAIR):
        dims, scales = (subject.shapes.of(subject.operand(node, i)) for i in (0, 1))
        if dims is None or not scales or scales == (1,):
            continue
        axis = int_attribute(node, "axis", 1)
        if not -len(dims) <= axis < len(dims):
            yield Problem(node_name(node), f"axis {axis} of a tensor of {len(dims)} axes")
        elif len(scales) > 1:
            block = int_attribute(node, "block_size", 0)
            if not _blocks_fit(dims, scales, axis % len(dims), block):
                reason = "its scales do not fit its blocks"
                yield Problem(node_name(node), reason, (node.input[1],))
        elif isinstance(dims[axis], int) and isinstance(scales[0], int) and dims[axis] != scales[0]:
            yield Problem(
                node_name(node),
                f"{scales[0]} scales along axis {axis}, which is {dims[axis]} long",
                (node.input[1],),
            )


def _blocks_fit(dims: Shape, scales: Shape, axis: int, size: int) -> bool:
    """Whether there is one scale per block of `size` along `axis`, and per index of the others."""
    if len(dims) != len(scales):
        return False
    for place, (length, count) in enumerate(zip(dims, scales, strict=True)):
        if isinstance(length, int) and isinstance(count, int):
            wanted = -(-length // size) if place == axis and size else length
            if count != wanted:
                return False
    return True


def foreign_type(subject: Subject) -> Iterator[Problem]:
    """Scales of another float type than the tensor that is quantised."""
    yield from _foreign(subject, fp8=False)


def foreign_type_of_fp8(subject: Subject) -> Iterator[Problem]:
    """The same where the codes are FP8."""
    yield from _foreign(subject, fp8=True)


def _foreign(subject: Subject, *, fp8: bool) -> Iterator[Problem]:
    for node in subject.nodes("QuantizeLinear"):
        kinds = [subject.types.get(name) for name in node.input[:2]]
        # FP32 scales do for any tensor.
        of_fp8 = subject.types.get(node.output[0]) == FLOAT8 and kinds[1] != TensorProto.FLOAT
        if of_fp8 == fp8 and kinds[0] != kinds[1] and FLOATS.issuperset(kinds):
            words = " and the scale ".join(type_name(kind) for kind in kinds if kind)
            yield Problem(node_name(node), f"the tensor is {words}", (node.input[1],))


def running_requantization(subject: Subject) -> Iterator[Problem]:
    """Codes that are decoded and coded again, with a scale that is no constant."""
    for node in subject.nodes("QuantizeLinear"):
        decode = subject.wiring.producer.get(node.input[0])
        if decode is None or decode.op_type != "DequantizeLinear":
            continue
        loose = [name for name in (decode.input[1], node.input[1]) if name not in subject.foldable]
        if loose:
            yield Problem(
                node_name(node),
                f"it codes what '{node_name(decode)}' decodes, and '{loose[0]}' is no constant",
                tuple(loose),
            )


def early_opset(subject: Subject) -> Iterator[Problem]:
    """Types that ONNX allows in Q/DQ from a later opset on than the file's."""
    for what, kinds, place, since in _SINCE:
        if subject.opset >= since:
            continue
        for node in subject.nodes(*PAIR):
            name = subject.operand(node, place) or node.output[0]
            if subject.types.get(name) in kinds:
                yield Problem(
                    node_name(node), f"{what} in opset {subject.opset}; ONNX has them from {since}"
                )


RULES: tuple[Rule, ...] = (
    Rule(
        name="scale-not-positive",
        severity="parse-error",
        check=not_positive,
        fix="clamp scales to at least 2^-24 in FP16, better 2^-14, before they are stored",
    ),
    Rule(
        name="scale-not-finite",
        severity="wrong-result",
        check=not_finite,
        fix="calibrate again: the tensor's range was infinite or too large for the scale's type",
    ),
    Rule(
        name="scale-overflow",
        severity="wrong-result",
        check=overflow,
        fix="compute this part in BF16 or FP32, with scales of that type",
    ),
    Rule(
        name="scale-subnormal",
        severity="advice",
        check=subnormal,
        fix="round codes with the scale as FP16 holds it, or compute this part in BF16",
    ),
    Rule(
        name="scale-count",
        severity="parse-error",
        check=count,
        fix="give one scale, or one per index of `axis`; its default is 1, also for a vector",
    ),
    Rule(
        name="scale-type",
        severity="advice",
        check=foreign_type,
        fix="store the scale in the tensor's type; ONNX before opset 23 knows nothing else",
    ),
    Rule(
        name="fp8-scale-type",
        severity="build-error",
        check=foreign_type_of_fp8,
        fix="store the scale in the tensor's type, or cast the tensor before QuantizeLinear",
    ),
    Rule(
        name="running-requantization",
        severity="build-error",
        check=running_requantization,
        fix="make both scales constants, or drop one of the two pairs",
        targets=RTX,
    ),
    Rule(
        name="opset-of-codes",
        severity="advice",
        check=early_opset,
        fix="declare opset 21: TensorRT reads it regardless, onnx.checker and other tools do not",
    ),
)
