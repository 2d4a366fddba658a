"""Zero points: TensorRT multiplies codes as they are, so each must stand for its multiple of 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from segquant_trt.backends.tensorrt.lint.element_types import FLOAT8, codes_type, type_name
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import PAIR, Subject
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.wiring import node_name


def nonzero(subject: Subject) -> Iterator[Problem]:
    """Asymmetric codes."""
    for node, zero in _integer(subject):
        values = subject.values(zero)
        if values is not None and np.any(np.asarray(values, dtype=np.float32) != 0):
            worst = float(np.abs(np.asarray(values, dtype=np.float32)).max())
            yield Problem(node_name(node), f"its zero point is not zero ({worst:g})", (zero,))


def not_constant(subject: Subject) -> Iterator[Problem]:
    """Zero points that come from an input or are computed."""
    for node, zero in _integer(subject):
        if zero not in subject.foldable:
            yield Problem(node_name(node), "its zero point is no constant", (zero,))


def size(subject: Subject) -> Iterator[Problem]:
    """One zero point for many scales, or the reverse."""
    for node, zero in _integer(subject):
        counts = [_count(name, subject) for name in (node.input[1], zero)]
        if None not in counts and counts[0] != counts[1]:
            yield Problem(
                node_name(node), f"it has {counts[1]} zero points for {counts[0]} scales", (zero,)
            )


def ignored(subject: Subject) -> Iterator[Problem]:
    """Zero points of FP8 codes, which nothing subtracts."""
    for node in subject.nodes(*PAIR):
        zero = subject.operand(node, 2)
        if subject.types.get(zero) != FLOAT8:
            continue
        values = subject.values(zero)
        if values is None or np.any(np.asarray(values, dtype=np.float32) != 0):
            yield Problem(node_name(node), "the zero point of its FP8 codes is ignored", (zero,))


def _integer(subject: Subject) -> Iterator[tuple[NodeProto, str]]:
    """Nodes with a zero point of integer codes."""
    for node in subject.nodes(*PAIR):
        zero = subject.operand(node, 2)
        if zero and subject.types.get(zero) != FLOAT8:
            yield node, zero


def implicit(subject: Subject) -> Iterator[Problem]:
    """QuantizeLinear that does not say the type of its codes."""
    for node in subject.nodes("QuantizeLinear"):
        if not subject.operand(node, 2) and not int_attribute(node, "output_dtype", 0):
            yield Problem(
                node_name(node),
                "it names neither a zero point nor output_dtype: TensorRT makes int8 codes where "
                "ONNX says uint8",
            )


def unsigned(subject: Subject) -> Iterator[Problem]:
    """Activations as uint8 with zero point 0."""
    yield from _narrowed(subject, TensorProto.UINT8, "0..255", "clips at 127 what is above")


def four_bits(subject: Subject) -> Iterator[Problem]:
    """Activations as int4."""
    yield from _narrowed(subject, TensorProto.INT4, "-8..7", "clips at -128 and 127 instead")


def _narrowed(subject: Subject, kind: int, codes: str, instead: str) -> Iterator[Problem]:
    for node in subject.nodes("QuantizeLinear"):
        if node.input[0] not in subject.foldable and codes_type(node, subject.types) == kind:
            yield Problem(
                node_name(node),
                f"its codes are {type_name(kind)} ({codes}); TensorRT computes them as int8 and "
                f"{instead}, without a word",
                tuple(node.output),
            )


def unsigned_given(subject: Subject) -> Iterator[Problem]:
    """Weights or inputs as uint8 codes."""
    for node in subject.nodes("DequantizeLinear"):
        maker = subject.wiring.producer.get(node.input[0])
        made = maker is not None and maker.op_type == "QuantizeLinear"
        if not made and subject.types.get(node.input[0]) == TensorProto.UINT8:
            reason = "it decodes UINT8 codes that no QuantizeLinear makes"
            yield Problem(node_name(node), reason, (node.input[0],))


def _count(name: str, subject: Subject) -> int | None:
    dims = subject.shapes.of(name) if name else None
    lengths = [length for length in dims or () if isinstance(length, int)]
    return None if dims is None or len(lengths) < len(dims) else int(np.prod(lengths))


RULES: tuple[Rule, ...] = (
    Rule(
        name="zero-point-nonzero",
        severity="parse-error",
        check=nonzero,
        fix="quantise symmetrically, or shift the tensor by a Sub before QuantizeLinear and put "
        "the correction into the bias",
    ),
    Rule(
        name="zero-point-not-constant",
        severity="build-error",
        check=not_constant,
        fix="make the zero point an int8 initializer of 0",
    ),
    Rule(
        name="zero-point-size",
        severity="parse-error",
        check=size,
        fix="give as many zero points as scales",
    ),
    Rule(
        name="fp8-zero-point",
        severity="wrong-result",
        check=ignored,
        fix="make the zero point a constant of 0",
    ),
    Rule(
        name="zero-point-implicit",
        severity="advice",
        check=implicit,
        fix="add an int8 zero point of 0, so that every tool reads the same codes",
    ),
    Rule(
        name="unsigned-codes",
        severity="wrong-result",
        check=unsigned,
        fix="quantise to int8",
    ),
    Rule(
        name="unsigned-stored-codes",
        severity="parse-error",
        check=unsigned_given,
        fix="store the codes as int8",
    ),
    Rule(
        name="four-bit-activation",
        severity="wrong-result",
        check=four_bits,
        fix="quantise activations to int8; only weights can have four bits",
    ),
)
