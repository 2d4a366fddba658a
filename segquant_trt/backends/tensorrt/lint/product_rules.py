"""What stands between a product's codes and the product."""

from __future__ import annotations

from collections.abc import Iterator

from segquant_trt.backends.tensorrt.lint import hardware
from segquant_trt.backends.tensorrt.lint.decoded import Decoded
from segquant_trt.backends.tensorrt.lint.element_types import INT4
from segquant_trt.backends.tensorrt.lint.finding import DATA_CENTRE, RTX
from segquant_trt.backends.tensorrt.lint.products import (
    Product,
    is_constant,
    is_weight_only,
)
from segquant_trt.backends.tensorrt.lint.rule import Check, Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.wiring import node_name


def obstacle(*causes: str) -> Check:
    """The check for products that are kept from 8 bits by one of `causes`."""

    def check(subject: Subject) -> Iterator[Problem]:
        for product in subject.products:
            if four_bit_weight_only(product, subject) or blocked_weight(product, subject):
                continue
            for found in product.obstacles:
                if found.cause in causes:
                    yield Problem(product.name, found.reason, found.tensors)

    return check


def four_bit_weight_only(product: Product, subject: Subject) -> bool:
    """Whether only the weight is coded, in four bits: that form is no 8-bit product by intent."""
    if not is_weight_only(product, subject):
        return False
    coded = next(operand for operand in product.operands if isinstance(operand, Decoded))
    return subject.types.get(coded.decode.input[0]) == INT4


def blocked_weight(product: Product, subject: Subject) -> bool:
    """Whether a weight with a scale per block meets codes."""
    both = [operand for operand in product.operands if isinstance(operand, Decoded)]
    return len(both) == 2 and any(
        is_constant(operand, subject) and int_attribute(operand.decode, "block_size", 0)
        for operand in both
    )


def blocked(subject: Subject) -> Iterator[Problem]:
    """Blocked weights whose other operand is coded too."""
    for product in subject.products:
        if blocked_weight(product, subject):
            yield Problem(product.name, "its weight has a scale per block")


def weight_only(subject: Subject) -> Iterator[Problem]:
    """Four-bit weights under 16-bit activations."""
    for product in subject.products:
        if four_bit_weight_only(product, subject):
            yield Problem(product.name, "its weight alone is coded: a 16-bit product")


def weight_path(subject: Subject) -> Iterator[Problem]:
    """Operators between a weight's DequantizeLinear and the product that TensorRT-RTX folds."""
    for product in subject.products:
        for operand in product.operands:
            if isinstance(operand, Decoded) and is_constant(operand, subject) and operand.path:
                steps = ", ".join(f"{n.op_type} '{node_name(n)}'" for n in operand.path)
                yield Problem(product.name, f"{steps} behind its weight's DequantizeLinear")


def between_scaled(subject: Subject) -> Iterator[Problem]:
    """Mul, Div and Neg between DequantizeLinear and product that TensorRT-RTX folds."""
    for product in subject.products:
        for operand in product.operands:
            steps = operand.path if isinstance(operand, Decoded) else ()
            scaled = [step for step in steps if step.op_type in ("Mul", "Div", "Neg")]
            if scaled:
                yield Problem(
                    product.name, f"{scaled[0].op_type} '{node_name(scaled[0])}' before it"
                )


RULES: tuple[Rule, ...] = (
    Rule(
        name="activation-scale",
        severity="not-8-bit",
        check=obstacle("activation-scale"),
        fix="use one scale per activation tensor; move channel differences into the weight, or "
        "split the product",
    ),
    Rule(
        name="dynamic-scale",
        severity="not-8-bit",
        check=obstacle("dynamic-scale"),
        fix="make the scale a constant; divide rows by their own range before QuantizeLinear and "
        "multiply after the product instead",
    ),
    Rule(
        name="dynamic-scale-convolution",
        severity="build-error",
        check=obstacle("dynamic-scale-convolution"),
        fix="make the scale a constant: TensorRT-RTX 1.7 crashes on this",
        targets=RTX,
    ),
    Rule(
        name="vector-scale",
        severity="not-8-bit",
        check=obstacle("vector-scale"),
        fix="store the scale and zero point as scalars, of shape []",
    ),
    Rule(
        name="weight-vector-scale",
        severity="build-error",
        check=obstacle("weight-vector-scale"),
        fix="store the scale as a scalar, of shape [], or one per output channel",
        targets=RTX,
    ),
    Rule(
        name="weight-axis",
        severity="not-8-bit",
        check=obstacle("weight-axis"),
        fix="quantise weights per output channel: MatMul [K,N] axis 1, Gemm with transB axis 0, "
        "Conv axis 0, ConvTranspose axis 1",
    ),
    Rule(
        name="weight-path",
        severity="not-8-bit",
        check=obstacle("weight-path"),
        fix="store the codes as the product reads them and put DequantizeLinear right before it",
        targets=DATA_CENTRE,
    ),
    Rule(
        name="weight-path",
        severity="advice",
        check=weight_path,
        fix="store the codes as the product reads them: data-centre TensorRT wants it so",
        targets=RTX,
    ),
    Rule(
        name="between-dq-and-product",
        severity="not-8-bit",
        check=obstacle("between"),
        fix="move it before QuantizeLinear or behind the product",
    ),
    Rule(
        name="between-dq-and-product",
        severity="advice",
        check=between_scaled,
        fix="put the factor into the scale: data-centre TensorRT does not",
        targets=RTX,
    ),
    Rule(
        name="concat-scales",
        severity="not-8-bit",
        check=obstacle("concat-scales", "concat-partial"),
        fix="multiply each part by its own slice of the weight and add, bring the parts to one "
        "scale, or quantise after the Concat",
    ),
    Rule(
        name="weight-concat",
        severity="build-error",
        check=obstacle("weight-concat"),
        fix="concatenate the codes and scales in the file",
        targets=RTX,
    ),
    Rule(
        name="weight-concat",
        severity="not-8-bit",
        check=obstacle("weight-concat"),
        fix="concatenate the codes and scales in the file",
        targets=DATA_CENTRE,
    ),
    Rule(
        name="half-quantized",
        severity="not-8-bit",
        check=obstacle("weight-not-quantized", "activation-not-quantized"),
        fix="quantise both operands, or neither",
    ),
    Rule(
        name="blocked-weight",
        severity="build-error",
        check=blocked,
        fix="use one scale per output channel; scales per block are for four-bit weights under "
        "16-bit activations",
    ),
    Rule(
        name="blocked-activation",
        severity="not-8-bit",
        check=obstacle("blocked-scale"),
        fix="use one scale per tensor",
    ),
    Rule(
        name="codes-differ",
        severity="build-error",
        check=obstacle("codes-differ"),
        fix="quantise both operands to INT8, or both to FP8",
    ),
    Rule(
        name="scale-types",
        severity="build-error",
        check=obstacle("scale-types"),
        fix="store both scales in the type of the product, without a Cast behind DequantizeLinear",
    ),
    Rule(
        name="transposed-convolution",
        severity="not-8-bit",
        check=obstacle("transposed-convolution"),
        fix="leave it in 16 bits, or write it as Resize and Conv",
        targets=RTX,
    ),
    Rule(
        name="turing-convolution",
        severity="not-8-bit",
        check=obstacle("turing-convolution"),
        fix="leave convolutions in FP16 on this GPU",
        targets=RTX,
        gpus=hardware.turing,
    ),
    Rule(
        name="weight-only",
        severity="advice",
        check=weight_only,
        fix="nothing: it saves memory, not arithmetic",
    ),
)
