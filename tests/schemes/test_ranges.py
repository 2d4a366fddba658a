"""Histograms of values, and the ranges that are searched on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.schemes import ValueHistogram
from segquant_trt.schemes.ranges import (
    one_polarity,
    polarity_scales,
    shifted_bounds,
    squared_error,
    symmetric_bound,
    widened,
)
from tests.schemes.activations import KINDS, Float, inputs, rows_of, silu


@given(x=inputs())
def test_histogram_is_the_one_that_calibration_makes(x: Float) -> None:
    from segquant_trt.calibrate.statistics import Accumulator

    accumulator = Accumulator(bins=1, rows_per_bin=1, seed=0)
    accumulator.update(x, step_bin=0, samples=1)
    stats = accumulator.finish()
    found = ValueHistogram.of(x)
    assert found.radius == 2.0 ** stats.exponent[0]
    assert (found.low, found.high) == (stats.minimum.min(), stats.maximum.max())
    np.testing.assert_array_equal(found.counts, stats.histogram[0])


@pytest.mark.parametrize("amax", [0.5, 1.0, 1.0000001, 0.0, 1e-30, 2.0**-24, 2.0**-23, 3e38])
def test_radius_is_the_least_power_of_two(amax: float) -> None:
    values = np.array([-amax, amax / 3], dtype=np.float32)
    found = ValueHistogram.of(values)
    assert found.radius >= -float(values[0])
    assert found.radius == 2.0**-24 or found.radius / 2 < -float(values[0])
    assert found.counts.sum() == 2


def test_extremes_of_more_data_than_the_values() -> None:
    x = rows_of("silu", 3, (7, 17))
    found = ValueHistogram.of(x, low=-0.2, high=37.0)
    assert (found.low, found.high) == (float(x.min()), 37.0)
    assert found.radius == 64.0
    assert found.counts.sum() == x.size
    assert symmetric_bound(found, "amax") == 37.0


@pytest.mark.parametrize("values", [[], [np.nan, 1.0], [-np.inf]])
def test_values_without_a_range_are_refused(values: list[float]) -> None:
    with pytest.raises(SegQuantError, match="missing, NaN or infinite"):
        ValueHistogram.of(np.array(values))


def test_widening_merges_pairs_around_zero() -> None:
    counts = np.arange(8, dtype=np.int64)
    assert widened(counts).tolist() == [0, 0, 0 + 1, 2 + 3, 4 + 5, 6 + 7, 0, 0]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    low=st.floats(-3.0, 0.0),
    high=st.floats(0.05, 3.0),
    levels=st.sampled_from([15, 127, 255, 4096]),
)
def test_squared_error_is_that_of_values_spread_over_their_bins(
    seed: int, low: float, high: float, levels: int
) -> None:
    """With few steps per bin and many: against the mean of a fine sampling of each bin."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, 50, 2048)
    counts[random.random(2048) < 0.9] = 0
    seen = ValueHistogram(low=-4.0, high=4.0, radius=4.0, counts=counts)
    offsets = (np.arange(2000) + 0.5) / 2000 * (8.0 / 2048)
    points = seen.centres()[counts > 0, None] - 4.0 / 2048 + offsets
    scale = (high - low) / levels
    first = np.rint(low / scale)
    decoded = scale * np.clip(np.rint(points / scale), first, first + levels)
    wanted = np.sum(counts[counts > 0] * np.mean((points - decoded) ** 2, axis=1))
    assert squared_error(seen, low, high, steps=levels) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("kind", ["normal", "silu", "positive", "negative", "vast"])
def test_squared_error_is_that_of_the_values(kind: str) -> None:
    x = rows_of(kind, 1, (200, 1025)).astype(np.float64)
    seen = ValueHistogram.of(x)
    bound = symmetric_bound(seen, "amax")
    for share in (1.0, 0.6, 0.1):
        scale = bound * share / 127
        decoded = scale * np.clip(np.rint(x / scale), -127, 127)
        found = squared_error(seen, -127 * scale, 127 * scale, steps=254)
        assert found == pytest.approx(np.sum((x - decoded) ** 2), rel=0.02)


def test_a_constant_is_coded_without_error() -> None:
    seen = ValueHistogram.of(np.full((3, 5), -0.7))
    bound = symmetric_bound(seen, "amax")
    assert squared_error(seen, -bound, bound, steps=254) == pytest.approx(0.0, abs=1e-12)
    assert symmetric_bound(seen, "mse") == pytest.approx(0.7)


@pytest.mark.parametrize("kind", ["normal", "silu", "negative", "one_outlier"])
def test_searched_bounds_are_near_the_best_of_a_fine_grid(kind: str) -> None:
    x = rows_of(kind, 2, (40, 1025)).astype(np.float64)

    def error(bound: float) -> float:
        scale = bound / 127
        return float(np.sum((x - scale * np.clip(np.rint(x / scale), -127, 127)) ** 2))

    found = error(symmetric_bound(ValueHistogram.of(x), "mse"))
    grid = np.abs(x).max() * np.linspace(0.003, 1.0, 600)
    assert found <= 1.02 * min(error(bound) for bound in grid)


@pytest.mark.parametrize("kind", ["normal", "silu", "negative", "lopsided"])
def test_searched_intervals_are_near_the_best_of_a_fine_grid(kind: str) -> None:
    x = np.random.default_rng(9).standard_t(3, 20_000)
    x = {"silu": silu, "negative": lambda v: -np.abs(v)}.get(kind, lambda v: v)(x)
    x = np.where(x > 0, 6 * x, x) if kind == "lopsided" else x

    def error(low: float, high: float) -> float:
        scale = (high - low) / 15  # few steps: clipping pays
        first = np.rint(low / scale)
        return float(np.sum((x - scale * np.clip(np.rint(x / scale), first, first + 15)) ** 2))

    seen = ValueHistogram.of(x)
    found = error(*shifted_bounds(seen, "mse", steps=15))
    grid = np.linspace(0.02, 1.0, 50)
    best = min(error(min(x.min(), 0) * a, max(x.max(), 0) * b) for a in grid for b in grid)
    assert found <= 1.05 * best


def test_a_rare_outlier_is_clipped_to_a_small_part_of_its_range() -> None:
    """Counts as of a whole calibration: of a hundred million values one is 40 deviations out."""
    seen = ValueHistogram.of(rows_of("normal", 8, (400, 1025)), high=40.0)
    counts = 250 * seen.counts
    counts[-int(1024 * (1 - 40 / 64))] += 1
    found = symmetric_bound(replace(seen, counts=counts), "mse", codes=7)
    assert 2.0 < found < 4.5


def test_narrow_polarity_is_searched_below_the_width_of_a_bin() -> None:
    """SiLU's negative side of 0.278 beside an activation of 3000 lies within one bin."""
    x = rows_of("silu", 4, (100, 1025))
    x[0, 0] = 3000.0
    negative = polarity_scales(ValueHistogram.of(x), "mse", codes=127)[1]
    assert 0.7 * 0.278 <= 127 * negative <= 0.279


@given(x=inputs())
def test_polarities_share_out_the_histogram(x: Float) -> None:
    seen = ValueHistogram.of(x)
    above, below = one_polarity(seen, "positive"), one_polarity(seen, "negative")
    np.testing.assert_array_equal(above.counts + below.counts, seen.counts)
    assert below.counts.sum() == np.sum(x < 0)
    assert (above.high, below.low) == (max(seen.high, 0.0), min(seen.low, 0.0))
    assert above.low >= 0.0 >= below.high


@pytest.mark.parametrize("codes", [127, 255])
def test_scales_of_each_polarity(codes: int) -> None:
    both = ValueHistogram.of(np.array([-0.25, 4.0]))
    assert polarity_scales(both, "amax", codes=codes) == pytest.approx((4 / codes, 0.25 / codes))
    one = ValueHistogram.of(np.array([-0.25, -4.0]))
    assert polarity_scales(one, "amax", codes=codes) == pytest.approx((4 / codes, 4 / codes))
    none = ValueHistogram.of(np.zeros(3))
    assert polarity_scales(none, "amax", codes=codes) == (1.0, 1.0)
    trace = ValueHistogram.of(np.array([-1e-30, 4.0]))
    positive, negative = polarity_scales(trace, "amax", codes=codes)
    assert positive / negative == 2.0**24


def test_percentiles_are_of_each_polarity_on_its_own() -> None:
    x = np.concatenate([np.linspace(-1, -0.001, 20_000), np.linspace(0, 5, 100), [40.0]])
    x[0] = -30.0
    positive, negative = polarity_scales(ValueHistogram.of(x), "percentile", codes=127)
    assert 127 * positive == pytest.approx(40.0)  # 101 values have no 99.99th percentile
    assert 127 * negative == pytest.approx(1.0, abs=64 / 2048)


@pytest.mark.parametrize("kind", KINDS)
def test_shifted_bounds_hold_zero_and_stay_within_what_was_seen(kind: str) -> None:
    x = rows_of(kind, 6, (9, 1025))
    for method in ("amax", "percentile", "mse"):
        low, high = shifted_bounds(ValueHistogram.of(x), method)
        assert min(x.min(), 0.0) <= low <= 0.0 <= high <= max(x.max(), 0.0)
