"""DualScale as SegQuant publishes it, and every form in which a graph can compute it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from segquant_trt.records import DualScale, SegmentPlan, Treatment, WeightPlan
from segquant_trt.schemes import (
    ValueHistogram,
    fake_quantize,
    planes,
    quantize_weight,
    site_output,
)
from segquant_trt.schemes.dual_full import fit as fit_full
from segquant_trt.schemes.dual_scale import fit, merged_rows, stacked_rows
from tests.schemes.activations import EPSILON, Float, assert_product, inputs, rows_of


def weight_rows(seed: int, width: int) -> Float:
    return rows_of("normal", seed + 1, (5, width))


@given(x=inputs(), seed=st.integers(0, 2**16))
def test_equals_the_published_formula(x: Float, seed: int) -> None:
    """`y = s+ s_w q+ W + s- s_w q- W`, integer products, everything else in float64."""
    above, below = np.maximum(x, 0), np.minimum(x, 0)
    largest, lowest = float(above.max()), float(-below.min())
    assume(min(largest, lowest) > 1e-7 * max(largest, lowest) and min(largest, lowest) > 1e-34)
    step = np.float32(largest / 127), np.float32(lowest / 127)
    rows = weight_rows(seed, x.shape[1])
    weight_step = (np.abs(rows).max(axis=1) / np.float32(127)).astype(np.float32)
    weight = np.rint(rows / weight_step[:, None]).astype(np.int64)
    codes = np.rint(above / step[0]).astype(np.int64), np.rint(below / step[1]).astype(np.int64)
    wanted = (
        float(step[0]) * weight_step.astype(np.float64) * (codes[0] @ weight.T)
        + float(step[1]) * weight_step.astype(np.float64) * (codes[1] @ weight.T)
    )  # fmt: skip

    scheme = fit(ValueHistogram.of(x), "amax")
    part = SegmentPlan(channels=x.shape[1], activation=scheme)
    found = site_output(x, rows, Treatment(segments=(part,), weight=WeightPlan()), {})
    decoded = codes[0] * float(step[0]) + codes[1] * float(step[1])
    assert_product(found, wanted, decoded, weight * weight_step[:, None])


@given(x=inputs(), seed=st.integers(0, 2**16))
def test_two_products_with_one_weight(x: Float, seed: int) -> None:
    scheme = fit(ValueHistogram.of(x), "amax")
    weight = quantize_weight(weight_rows(seed, x.shape[1]), WeightPlan())
    accumulators = [
        scale * ((plane.quantize(x).astype(np.int64) - 128) @ weight.codes.astype(np.int64).T)
        for plane, scale in zip(
            planes(scheme, site="s"), (scheme.positive_scale, scheme.negative_scale), strict=True
        )
    ]
    found = (accumulators[0] + accumulators[1]) * weight.scale
    decoded = fake_quantize(x, scheme)
    assert_product(found, decoded @ weight.dequantize().T, decoded, weight.dequantize())


@given(x=inputs(), seed=st.integers(0, 2**16))
def test_stacked_rows_are_one_product(x: Float, seed: int) -> None:
    scheme = fit(ValueHistogram.of(x), "amax")
    rows = weight_rows(seed, x.shape[1])
    weight = quantize_weight(rows, WeightPlan())
    stacked = stacked_rows(x, scheme)
    assert stacked.shape == (2 * len(x), x.shape[1])
    ratio = stacked / np.float32(scheme.positive_scale)
    codes = np.clip(np.rint(ratio), -128, 127)
    separate = np.concatenate(
        [plane.quantize(x).astype(np.float32) - 128 for plane in planes(scheme, site="s")]
    )
    # Two roundings instead of one may move a value across a tie, and nothing else.
    near_tie = np.abs(ratio - np.floor(ratio) - 0.5) <= 8 * EPSILON * np.abs(ratio)
    assert (near_tie | (codes == separate)).all()
    product = np.float32(scheme.positive_scale) * (separate @ weight.dequantize().T)
    decoded = fake_quantize(x, scheme)
    wanted = decoded @ weight.dequantize().T
    assert_product(merged_rows(product, scheme), wanted, decoded, weight.dequantize())


@pytest.mark.parametrize("extreme", [1e-38, 3e38])
def test_stacked_rows_stay_finite_where_one_polarity_was_not_seen(extreme: float) -> None:
    seen = np.array([[0.0, 2.0]], dtype=np.float32) * np.float32(extreme / 2)
    stacked = stacked_rows(
        np.array([[0.0, -1.0]], dtype=np.float32), fit(ValueHistogram.of(seen), "amax")
    )
    assert np.isfinite(stacked).all()


@given(x=inputs(), seed=st.integers(0, 99))
def test_full_codes_shift_to_signed_ones_with_two_corrections(x: Float, seed: int) -> None:
    """Targets without zero points: each plane as int8, its shift repaired by the weight's sum."""
    scheme = fit_full(ValueHistogram.of(x), "amax")
    weight = quantize_weight(weight_rows(seed, x.shape[1]), WeightPlan())
    total = weight.dequantize().sum(axis=1, dtype=np.float64)
    found = np.zeros((len(x), 5))
    for plane in planes(scheme, site="s"):
        signed = plane.quantize(x).astype(np.int64) - 128
        shift = 128 - plane.zero_point
        found += plane.scale * (signed @ weight.codes.T.astype(np.int64) * weight.scale)
        found += plane.scale * shift * total
    decoded = fake_quantize(x, scheme)
    # The terms that cancel have all 128 steps.
    largest = np.full_like(decoded, 128 * max(scheme.positive_scale, scheme.negative_scale))
    wanted = decoded.astype(np.float64) @ weight.dequantize().astype(np.float64).T
    assert_product(found, wanted, largest, weight.dequantize())


def test_each_polarity_keeps_its_own_range() -> None:
    x = rows_of("silu", 0, (50, 17))
    scheme = fit(ValueHistogram.of(x), "amax")
    assert isinstance(scheme, DualScale)
    assert scheme.positive_scale == pytest.approx(x.max() / 127, rel=1e-6)
    assert scheme.negative_scale == pytest.approx(-x.min() / 127, rel=1e-6)
