"""Amdahl's law against a sum of times, and FLUX's ceilings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.bench.ceiling import ceiling_of
from segquant_trt.bench.published import PUBLISHED, published_for
from segquant_trt.bench.work import Work
from segquant_trt.errors import SegQuantError

MACS = st.integers(0, 10**15)


def test_flux_at_1024_pixels() -> None:
    flux = published_for("FluxTransformer2DModel")
    assert flux is not None
    found = ceiling_of(flux.work(), flux.name)
    assert round(found.attention_share, 2) == 0.20
    assert round(found.speedup_attention_16bit, 2) == 1.67
    assert round(found.speedup_attention_8bit, 2) == 2.00


@given(coded=MACS, attention=MACS, other=MACS, twice=st.floats(0, 1), ratio=st.floats(1.0, 16.0))
def test_the_ceiling_is_a_ratio_of_times(
    coded: int, attention: int, other: int, twice: float, ratio: float
) -> None:
    total = coded + attention + other
    if total == 0:
        return
    repeated = round(twice * coded)
    work = Work(coded=coded, attention=attention, other=other, repeated=repeated)
    found = ceiling_of(work, "m", ratio=ratio)
    slow_s = float(total)  # at one multiply-accumulate per second
    fast_s = (coded + repeated) / ratio + attention + other
    faster_s = (coded + repeated + attention) / ratio + other
    assert found.speedup_attention_16bit == pytest.approx(slow_s / fast_s)
    assert found.speedup_attention_8bit == pytest.approx(slow_s / faster_s)
    assert found.coded_share + found.attention_share + found.other_share == pytest.approx(1.0)
    assert found.speedup_attention_16bit <= found.speedup_attention_8bit * 1.000001
    assert found.speedup_attention_8bit <= ratio * 1.000001


def test_no_products_have_no_ceiling() -> None:
    with pytest.raises(SegQuantError, match="empty has no matrix products"):
        ceiling_of(Work(coded=0, attention=0, other=0), "empty")


def test_ceilings_of_the_three_published_models() -> None:
    found = {
        one.class_name: ceiling_of(one.work(), one.name).speedup_attention_16bit
        for one in PUBLISHED
    }
    assert {name: round(times, 2) for name, times in found.items()} == {
        "FluxTransformer2DModel": 1.67,
        "SD3Transformer2DModel": 1.62,
        "UNet2DConditionModel": 1.79,
    }
