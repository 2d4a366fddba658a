"""Sizes of inputs: the first wrong one is named, in the caller's words."""

from __future__ import annotations

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records import AxisRange, TensorSpec
from segquant_trt.records.axes import Wording, check_sizes

TENSORS = (
    TensorSpec(name="x", dtype="float32", shape=("batch", "height", 3)),
    TensorSpec(name="e", dtype="float32", shape=("batch", "free")),
)
AXES = (
    AxisRange(name="batch", minimum=1, typical=2, maximum=4),
    AxisRange(name="height", minimum=8, typical=16, maximum=24, multiple=8),
)
WORDING = Wording(before="argument ", after=" of {call}", hint="look again")


def check(x: tuple[int, ...], e: tuple[int, ...]) -> None:
    check_sizes(TENSORS, AXES, {"x": x, "e": e}, WORDING)


@pytest.mark.parametrize(("batch", "height", "free"), [(1, 8, 0), (4, 24, 10_000), (3, 16, 1)])
def test_allowed_sizes_pass(batch: int, height: int, free: int) -> None:
    check((batch, height, 3), (batch, free))


@pytest.mark.parametrize(
    ("x", "e", "said"),
    [
        ((2, 8), (2, 1), "argument 'x' of {call} has shape (2, 8); allowed: (batch, height, 3)"),
        ((2, 8, 4), (2, 1), "argument 'x' of {call} has shape (2, 8, 4)"),
        ((2, 12, 3), (2, 1), "'x' of {call} has height 12; allowed: 8 to 24 in multiples of 8"),
        ((2, 32, 3), (2, 1), "'x' of {call} has height 32; allowed: 8 to 24"),
        ((5, 8, 3), (5, 1), "'x' of {call} has batch 5; allowed: 1 to 4"),
        ((2, 8, 3), (3, 1), "'e' of {call} has batch 3, but 'x' has batch 2; they must agree"),
        ((2, 8, 3), (), "'e' of {call} has shape (); allowed: (batch, free)"),
    ],
)
def test_the_first_wrong_size_is_named(x: tuple[int, ...], e: tuple[int, ...], said: str) -> None:
    with pytest.raises(SegQuantError) as refused:
        check(x, e)
    assert said in refused.value.what
    assert refused.value.hint == "look again"
