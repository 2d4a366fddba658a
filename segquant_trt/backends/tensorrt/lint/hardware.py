"""What the GPU itself cannot do."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from segquant_trt.backends.tensorrt.lint.element_types import FLOAT8, INT4
from segquant_trt.backends.tensorrt.lint.finding import DATA_CENTRE, RTX
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import PAIR, Subject
from segquant_trt.graph.wiring import node_name


def without_fp8(capability: int) -> bool:
    """GPUs before Ada and Hopper."""
    return capability < 89


def turing(capability: int) -> bool:
    """GPUs before Ampere."""
    return capability < 80


def without_int8(capability: int) -> bool:
    """B300, whose tensor cores have no INT8 path worth using."""
    return capability == 103


def fp8(subject: Subject) -> Iterator[Problem]:
    """FP8 codes."""
    yield from _of_type(subject, FLOAT8, "FP8")


def bfloat16(subject: Subject) -> Iterator[Problem]:
    """BF16 tensors."""
    yield from _of_type(subject, TensorProto.BFLOAT16, "BF16")


def int4(subject: Subject) -> Iterator[Problem]:
    """Codes of four bits."""
    for node in subject.nodes(*PAIR):
        codes = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
        if subject.types.get(codes) == INT4:
            yield Problem(
                node_name(node), f"its codes have four bits; sm_{subject.capability}", (codes,)
            )


def float32_products(subject: Subject) -> Iterator[Problem]:
    """Products whose result is FP32, of whatever operands."""
    for node in subject.nodes("MatMul", "Gemm"):
        made = node.output[0]
        if made in subject.needed and subject.types.get(made) == TensorProto.FLOAT:
            yield Problem(
                node_name(node), f"TensorRT-RTX has no FP32 product for sm_{subject.capability}"
            )


def _of_type(subject: Subject, kind: int, word: str) -> Iterator[Problem]:
    for node in subject.wiring.nodes:
        made = [name for name in node.output if name in subject.needed]
        held = [name for name in (*node.input, *made) if subject.types.get(name) == kind]
        if made and held:
            reason = f"it computes with {word}, which GPUs of sm_{subject.capability} do not have"
            yield Problem(node_name(node), reason, tuple(dict.fromkeys(held)))


def int8(subject: Subject) -> Iterator[Problem]:
    """Products that would be INT8."""
    for product in subject.products:
        if product.precision == "int8" and product.eight_bit:
            yield Problem(
                product.name, f"sm_{subject.capability} has no INT8 tensor path worth using"
            )


RULES: tuple[Rule, ...] = (
    Rule(
        name="fp8-on-this-gpu",
        severity="build-error",
        check=fp8,
        fix="plan INT8 for this GPU; FP8 needs sm_89 or later",
        gpus=without_fp8,
    ),
    Rule(
        name="bf16-on-this-gpu",
        severity="build-error",
        check=bfloat16,
        fix="export in FP16; BF16 needs sm_80 or later",
        gpus=turing,
    ),
    Rule(
        name="int4-on-this-gpu",
        severity="build-error",
        check=int4,
        fix="use int8 weights; codes of four bits need sm_80 or later",
        targets=RTX,
        gpus=turing,
    ),
    Rule(
        name="fp32-product-on-this-gpu",
        severity="build-error",
        check=float32_products,
        fix="export in FP16; FP32 products need sm_80 or later",
        targets=RTX,
        gpus=turing,
    ),
    Rule(
        name="int8-on-this-gpu",
        severity="not-8-bit",
        check=int8,
        fix="plan FP8 for this GPU",
        targets=DATA_CENTRE,
        gpus=without_int8,
    ),
)
