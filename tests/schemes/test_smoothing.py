"""Divisors: SmoothQuant's formula, segments, and the search over both."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.schemes.smoothing import (
    ALPHAS,
    EXPONENTS,
    channel_amax,
    divisor_for,
    per_column,
    search_divisor,
)

magnitudes = st.lists(st.floats(2**-20, 2**20, width=32), min_size=2, max_size=12)
shares = st.floats(0, 1)


def eight_bit_error(x: np.ndarray, w: np.ndarray, divisor: np.ndarray, taps: int = 1) -> float:
    """Squared output error of per-tensor INT8 inputs and per-channel INT8 weights, by hand."""
    d = np.array([value for value in divisor.astype(np.float64) for _ in range(taps)])
    a, b = x.astype(np.float64) / d, w.astype(np.float64) * d
    step = np.abs(a).max() / 127
    steps = np.abs(b).max(axis=1, keepdims=True) / 127
    coded = (np.rint(a / step) * step) @ (np.rint(b / steps) * steps).T
    return float(np.square(coded - x.astype(np.float64) @ w.T.astype(np.float64)).sum())


def site(seed: int, channels: int, taps: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    loud = np.exp(1.2 * random.standard_normal(channels))
    x = random.standard_normal((150, channels, taps)) * loud[:, None]
    w = random.standard_normal((13, channels, taps)) * loud[:, None] ** random.uniform(-0.6, 0.2)
    return (
        x.reshape(150, -1).astype(np.float32),
        w.reshape(13, -1).astype(np.float32),
    )


@given(amax=magnitudes, alpha=shares, seed=st.integers(0, 2**20))
def test_it_is_smoothquants_formula_at_geometric_mean_one(amax, alpha: float, seed: int) -> None:
    x = np.float32(amax)
    w = np.exp(np.random.default_rng(seed).standard_normal(len(x))).astype(np.float32)
    wanted = [float(a) ** alpha / float(b) ** (1 - alpha) for a, b in zip(x, w, strict=True)]
    mean = math.exp(math.fsum(math.log(value) for value in wanted) / len(wanted))
    wanted = np.clip(np.array(wanted) / mean, 2.0**-16, 2.0**16)
    np.testing.assert_allclose(divisor_for(alpha, None, x, w, (len(x),)), wanted, rtol=1e-5)


@given(alpha=shares, exponent=shares)
def test_an_exponent_alone_tells_segments_apart(alpha: float, exponent: float) -> None:
    x = np.float32([1, 4, 2, 100, 900, 0.5])
    w = np.float32([3, 0.1, 0.2, 7, 1, 1])
    segments = (3, 2, 1)
    d = divisor_for(alpha, exponent, x, w, segments).astype(np.float64)
    parts = np.split(np.log(d), [3, 5])
    means = np.array([part.mean() for part in parts])
    ranges = np.log([4.0, 900.0, 0.5])
    np.testing.assert_allclose(np.diff(means), exponent * np.diff(ranges), atol=1e-6)
    for part, ax, aw in zip(parts, np.split(x, [3, 5]), np.split(w, [3, 5]), strict=True):
        inside = alpha * np.log(ax) - (1 - alpha) * np.log(aw)
        np.testing.assert_allclose(part - part.mean(), inside - inside.mean(), atol=1e-6)
    assert np.log(d).mean() == pytest.approx(0.0, abs=1e-6)


def test_without_either_part_it_is_one() -> None:
    x = np.float32([1, 0, 1e30, 5])
    np.testing.assert_array_equal(divisor_for(None, None, x, x, (4,)), np.ones(4))
    np.testing.assert_array_equal(divisor_for(None, 0.7, x, x, (4,)), np.ones(4))


@settings(max_examples=200)
@given(
    data=st.data(),
    alpha=st.one_of(st.none(), shares),
    exponent=st.one_of(st.none(), shares),
    powers=st.booleans(),
)
def test_no_channel_breaks_it(data, alpha, exponent, powers: bool) -> None:
    """Dead channels, missing weights, the ends of float32."""
    sizes = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    extreme = st.sampled_from([0.0, 1e-45, 1e-38, 1.0, 3e38])
    vector = st.lists(extreme, min_size=sum(sizes), max_size=sum(sizes))
    x, w = np.float32(data.draw(vector)), np.float32(data.draw(vector))
    d = divisor_for(alpha, exponent, x, w, sizes, powers_of_two=powers)
    assert d.dtype == np.float32
    assert ((d >= 2.0**-16) & (d <= 2.0**16)).all()
    assert (d[x == 0] == 1.0).all()
    if powers:
        assert (np.frexp(d)[0] == 0.5).all()


def test_a_channel_without_weights_is_divided_as_if_it_had_the_least() -> None:
    x, w = np.float32([2, 2, 2]), np.float32([1, 0, 8])
    d = divisor_for(0.5, None, x, w, (3,))
    assert d[1] == d[0] > d[2]


def test_amax_goes_over_rows_weights_and_taps() -> None:
    rows = np.zeros((2, 3, 12), dtype=np.float32)
    rows[0, 1, 3] = -5.0  # channel 0 of 3, its last tap
    rows[1, 2, 4] = 2.0
    rows[1, 0, 7] = -1.0
    assert channel_amax(rows, taps=4).tolist() == [5.0, 2.0, 0.0]
    assert channel_amax(rows[:0], taps=4).tolist() == [0.0] * 3
    assert per_column(np.float32([2, 3]), taps=3).tolist() == [2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(("channels", "taps"), [(1, 1), (17, 1), (6, 9)])
def test_a_divisor_leaves_the_float_site_as_it_is(channels: int, taps: int) -> None:
    x, w = site(3, channels, taps)
    amax = channel_amax(x, taps=taps), channel_amax(w, taps=taps)
    d = per_column(divisor_for(0.6, None, *amax, (channels,)), taps=taps)
    wanted = x.astype(np.float64) @ w.T
    found = (x / d).astype(np.float64) @ (w * d).T
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max())
    exact = divisor_for(0.6, None, *amax, (channels,), powers_of_two=True)
    exact = per_column(exact, taps=taps)
    np.testing.assert_array_equal((x / exact) * exact, x)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("taps", [1, 4])
def test_the_search_finds_what_brute_force_finds(seed: int, taps: int) -> None:
    x, w = site(seed, 24, taps)
    x[:, : 8 * taps] *= 50.0
    amax = channel_amax(x, taps=taps), channel_amax(w, taps=taps)
    found = search_divisor(*amax, (8, 16), lambda d: eight_bit_error(x, w, d, taps))
    errors = {
        pair: eight_bit_error(x, w, divisor_for(*pair, *amax, (8, 16)), taps)
        for pair in itertools.product(ALPHAS, EXPONENTS)
    }
    assert found.error == min(errors.values())
    assert errors[found.alpha, found.segment_exponent] == found.error
    assert eight_bit_error(x, w, found.divisor, taps) == found.error
    assert {(c.alpha, c.segment_exponent): c.error for c in found.tried}.items() <= errors.items()
    # (None, None), (None, 0) are one and the same divisor; all others differ.
    assert len(found.tried) == len(ALPHAS) * len(EXPONENTS) - 1


def test_smoothing_gains_on_outlier_channels() -> None:
    x, w = site(5, 64)
    x[:, [3, 40]] *= 80.0
    amax = channel_amax(x), channel_amax(w)
    found = search_divisor(*amax, (64,), lambda d: eight_bit_error(x, w, d))
    plain = eight_bit_error(x, w, np.ones(64, dtype=np.float32))
    assert not found.is_identity
    assert found.error < 0.05 * plain


def test_segments_of_unlike_range_are_rescaled() -> None:
    random = np.random.default_rng(6)
    x = random.standard_normal((200, 40))
    x[:, :8] *= 100.0
    w = random.standard_normal((20, 40))
    w[:, :8] *= 0.01
    x, w = x.astype(np.float32), w.astype(np.float32)
    amax = channel_amax(x), channel_amax(w)

    def search(alphas: tuple, exponents: tuple) -> tuple:
        found = search_divisor(
            *amax, (8, 32), lambda d: eight_bit_error(x, w, d), alphas=alphas, exponents=exponents
        )
        return found.error, found

    plain, _ = search((None,), (None,))
    rescaled, found = search((None,), EXPONENTS)
    assert found.alpha is None
    assert found.segment_exponent == 1.0
    assert rescaled < 0.01 * plain
    both, _ = search(ALPHAS, EXPONENTS)
    assert both <= rescaled


@pytest.mark.parametrize("best", [*ALPHAS])
def test_every_alpha_can_win(best) -> None:
    """The last one too."""
    x, w = np.float32([1, 9, 0.2]), np.float32([0.5, 0.1, 3])
    wanted = divisor_for(best, None, x, w, (3,))
    calls = []

    def evaluate(divisor: np.ndarray) -> float:
        calls.append(divisor)
        return 0.0 if np.array_equal(divisor, wanted) else 1.0

    found = search_divisor(x, w, (3,), evaluate)
    assert found.alpha == best
    assert found.segment_exponent is None
    np.testing.assert_array_equal(found.divisor, wanted)
    assert len(calls) == len(ALPHAS)


@pytest.mark.parametrize("error", [0.0, 1.0, math.nan, math.inf])
def test_no_divisor_wins_where_none_is_better(error: float) -> None:
    found = search_divisor(np.float32([1, 9]), np.float32([4, 3]), (1, 1), lambda _: error)
    assert found.is_identity
    assert found.divisor.tolist() == [1.0, 1.0]


def test_an_error_that_is_not_a_number_never_wins() -> None:
    errors = iter([math.nan, math.nan, 7.0, math.nan])
    found = search_divisor(
        np.float32([1, 9]), np.float32([4, 3]), (2,), lambda _: next(errors), alphas=(0.0, 0.5, 1.0)
    )
    assert (found.alpha, found.error) == (0.5, 7.0)


def test_powers_of_two_that_coincide_are_evaluated_once() -> None:
    calls = []
    found = search_divisor(
        np.float32([1, 1.3]),
        np.float32([1, 1]),
        (2,),
        lambda d: calls.append(d.tobytes()) or 1.0,
        powers_of_two=True,
    )
    assert len(calls) == len(set(calls)) == len(found.tried) == 1


def test_segments_must_cover_the_channels() -> None:
    with pytest.raises(ValueError, match="3 inputs"):
        divisor_for(0.5, None, np.ones(3, np.float32), np.ones(3, np.float32), (2, 2))
