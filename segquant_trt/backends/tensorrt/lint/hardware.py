"""What the GPU itself cannot do."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import TensorProto

from segquant_trt.backends.tensorrt.lint.element_types import FLOAT8
from segquant_trt.backends.tensorrt.lint.finding import DATA_CENTRE
from segquant_trt.backends.tensorrt.lint.rule import Problem, Rule
from segquant_trt.backends.tensorrt.lint.subject import Subject
from segquant_trt.graph.wiring import node_name


def without_fp8(capability: int) -> bool:
    """GPUs before Ada and Hopper."""
    return capability < 89


def without_bfloat16(capability: int) -> bool:
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


def _of_type(subject: Subject, kind: int, word: str) -> Iterator[Problem]:
    for node in subject.wiring.nodes:
        made = [name for name in node.output if subject.types.get(name) == kind]
        if made:
            reason = f"it computes {word}, which GPUs of sm_{subject.capability} do not have"
            yield Problem(node_name(node), reason, tuple(made))


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
        gpus=without_bfloat16,
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
