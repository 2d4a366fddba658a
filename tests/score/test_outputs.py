"""Requantised outputs: noise by ONNX's own formulas, with one scale and with one per channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segquant_trt.records import PerStep, PerToken, Static
from segquant_trt.score.group import Member
from segquant_trt.score.outputs import output_factors, output_ranges, rounding_noise
from tests.score.groups import EDGES, convolution, linears, stats


def conv(seed: int = 1) -> Member:
    """Output channels of very unlike ranges, one of one sign and one that is constant."""
    own = convolution(seed, 50, (7, 6), 5).members[0]
    weight = own.weight * np.float32([1.0, 0.01, 0.3, 1.0, 0.0])[:, None]
    bias = np.float32([0.0, 0.0, -90.0, 0.5, 2.0])
    y = own.rows @ weight.T + bias
    return replace(own, weight=weight, bias=bias, output=stats(y))


def pair(y: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """QuantizeLinear and DequantizeLinear of uint8."""
    codes = np.clip(np.rint(y / np.float32(scale)) + zero, 0, 255)
    return (codes - zero) * np.float64(np.float32(scale))


def test_noise_of_one_scale_and_of_one_per_channel() -> None:
    own = conv()
    y = own.rows @ own.weight.T + own.bias
    ranges = output_ranges(own, "amax")
    single, several = rounding_noise(own, ranges)
    low, high = ranges.whole
    one = pair(y, (high - low) / 255, round(-low / (high - low) * 255)) - y
    each = np.empty_like(y, dtype=np.float64)
    for n in range(5):
        low, high = min(y[..., n].min(), 0.0), max(y[..., n].max(), 0.0)
        step = (high - low) / 255 or 1.0
        each[..., n] = pair(y[..., n], step, round(-low / step)) - y[..., n]
    for found, error in ((single, one), (several, each)):
        wanted = (np.square(error).mean(axis=1) * own.white).sum(axis=1)
        np.testing.assert_allclose(found, wanted, rtol=0.02)
    assert (several < single).all()


def test_a_range_covers_all_outputs_unless_clipping_is_asked_for() -> None:
    own = conv(2)
    y = own.rows @ own.weight.T + own.bias
    low, high = output_ranges(own, "amax").whole
    step = (high - low) / 255
    assert low == pytest.approx(min(y.min(), 0.0), abs=step)
    assert high == pytest.approx(max(y.max(), 0.0), abs=step)
    searched = output_ranges(own, "mse").whole
    assert low - step <= searched[0] <= 0.0 <= searched[1] <= high + step


def test_channel_ranges_include_zero() -> None:
    own = conv(3)
    y = own.rows @ own.weight.T + own.bias
    found = output_ranges(own, "amax").channels
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], np.minimum(y.min(axis=(0, 1)), 0), rtol=1e-6)
    np.testing.assert_allclose(found[1], np.maximum(y.max(axis=(0, 1)), 0), rtol=1e-6)
    assert found[:, 4].tolist() == [0.0, 2.0]


def test_outputs_of_linears_are_not_requantised() -> None:
    own = linears(4, 10, (9,), [5]).members[0]
    single, several = rounding_noise(own, output_ranges(own, "amax"))
    assert not single.any()
    assert not several.any()


def test_a_convolution_that_gives_zero_has_no_rounding_noise() -> None:
    own = convolution(5, 10, (7, 6), 5).members[0]
    silent = replace(
        own, weight=0 * own.weight, bias=None, output=stats(np.zeros((3, 10, 5), np.float32))
    )
    single, several = rounding_noise(silent, output_ranges(silent, "mse"))
    assert not single.any()
    assert not several.any()


def test_a_bias_that_is_computed_leaves_outputs_over_a_factor_unknown() -> None:
    """Calibration saw y, and what the graph codes is (y - b) / r."""
    own = conv(6)
    steps = PerStep(edges=EDGES, factors=(1.0, 2.0, 4.0))
    assert output_factors(own, Static(), None) is None
    found = [output_factors(own, factor, None) for factor in (steps, PerToken())]
    assert [factors is None for factors in found] == [False, False]
    computed = replace(own, bias=None, site=replace(own.site, computed_bias=True))
    unknown = [output_factors(computed, factor, None) for factor in (steps, PerToken())]
    assert unknown == [None, None]
