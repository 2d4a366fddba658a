"""Streaming statistics equal those of all the data at once, however it is split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.calibrate.statistics import Accumulator
from segquant_trt.records.calibration import HISTOGRAM_BINS

Rows = npt.NDArray[np.float32]


def gather(parts: list[Rows], *, rows_per_bin: int = 8) -> Accumulator:
    accumulator = Accumulator(bins=1, rows_per_bin=rows_per_bin, seed=3)
    for part in parts:
        accumulator.update(part, step_bin=0, samples=1)
    return accumulator


@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 63), max_size=4, unique=True),
    exponents=st.lists(st.integers(-6, 8), min_size=5, max_size=5),
)
def test_any_split_gives_the_same_ranges_and_histogram(
    seed: int, cuts: list[int], exponents: list[int]
) -> None:
    rows = np.random.default_rng(seed).normal(size=(64, 5)).astype(np.float32)
    rows *= np.exp2(np.array(exponents, dtype=np.float32))
    whole = gather([rows]).finish()
    split = gather(np.split(rows, sorted(cuts))).finish()
    assert np.array_equal(whole.minimum, rows.min(axis=0, keepdims=True))
    assert np.array_equal(whole.maximum, rows.max(axis=0, keepdims=True))
    assert np.array_equal(split.minimum, whole.minimum)
    assert np.array_equal(split.maximum, whole.maximum)
    assert np.array_equal(split.exponent, whole.exponent)
    assert np.array_equal(split.histogram, whole.histogram)
    assert whole.histogram.sum() == rows.size


def test_histogram_is_numpys_over_the_same_range() -> None:
    # Multiples of 1/64 lie on no rounding boundary of the bins' arithmetic.
    rows = np.random.default_rng(0).integers(-200, 200, size=(100, 7)).astype(np.float32) / 64
    stats = gather([rows]).finish()
    radius = 2.0 ** int(stats.exponent[0])
    expected, _ = np.histogram(rows, bins=HISTOGRAM_BINS, range=(-radius, radius))
    assert radius / 2 < np.abs(rows).max() <= radius
    assert np.array_equal(stats.histogram[0], expected)


def test_a_tiny_negative_value_is_counted_below_zero() -> None:
    rows = np.array([[-1e-12, 300.0]], dtype=np.float32)
    counts = gather([rows]).finish().histogram[0]
    assert counts[HISTOGRAM_BINS // 2 - 1] == 1
    assert counts[HISTOGRAM_BINS // 2] == 0


def test_sampled_rows_are_rows_of_the_data_from_all_over_it() -> None:
    rows = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    kept = gather(np.split(rows, 10), rows_per_bin=64).finish().rows[0]
    numbers = kept[:, 0] / 4
    assert kept.shape == (64, 4)
    assert len(set(numbers.tolist())) == 64
    assert np.array_equal(kept, rows[numbers.astype(int)])
    assert numbers.mean() == pytest.approx(500, abs=150)


def test_bins_are_kept_apart() -> None:
    accumulator = Accumulator(bins=2, rows_per_bin=4, seed=0)
    accumulator.update(np.full((6, 3), 2.0, np.float32), step_bin=0, samples=2)
    accumulator.update(np.full((6, 3), -5.0, np.float32), step_bin=1, samples=2)
    stats = accumulator.finish()
    assert stats.maximum.tolist() == [[2.0] * 3, [-5.0] * 3]
    assert stats.exponent.tolist() == [1, 3]
    assert stats.rows.shape == (2, 4, 3)
    assert stats.elements_per_sample == 9
