"""The divisor of a group: of all that are tried the one of least noise, by whole sites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segquant_trt.records import Smoothing, Treatment, WeightPlan
from segquant_trt.schemes import site_output
from segquant_trt.schemes.smoothing import divisor_for
from segquant_trt.score.coding import fit_segments
from segquant_trt.score.divisors import best_divisor, own_columns, weight_noise
from segquant_trt.score.group import Group
from tests.score.groups import convolution, group, linears, steps_of

SIZES = (11, 18)
ROUNDED = ("symmetric", "shifted")
SOME_ROWS = 8


def site_noise(found: Group, divisor: np.ndarray, factor: str) -> float:
    """All sites together, inputs and weights coded at once, ranges not clipped."""
    segments = fit_segments(found, divisor, (sum(SIZES),), factor, [ROUNDED], "amax")
    smoothing = Smoothing(divisor="d", alpha=None, segment_exponent=None)
    treatment = Treatment(segments=segments, smoothing=smoothing, weight=WeightPlan())
    total = 0.0
    for own in found.members:
        flat = own.rows.reshape(-1, own.rows.shape[-1])
        steps = steps_of(found.edges, own.rows.shape[1])
        y = site_output(flat, own.weight, treatment, {"d": divisor}, None, steps, own.taps)
        error = (y - flat.astype(np.float64) @ own.weight.T).reshape(*own.rows.shape[:2], -1)
        total += float((np.square(error).mean(axis=1) * own.gains).sum(axis=1).mean())
    return total


@pytest.mark.parametrize("factor", ["static", "per_token", "per_step"])
def test_noise_of_all_candidates_is_that_of_whole_sites(factor: str) -> None:
    found = linears(1, SOME_ROWS, SIZES, [30, 17])
    chosen = best_divisor(found, factor, WeightPlan())
    assert len(chosen.tried) > 50
    amax = np.maximum(-found.low, found.high).max(axis=0)
    weights = np.max([np.abs(m.weight).max(axis=0) for m in found.members], axis=0)
    for tried in (chosen.tried[0], *chosen.tried[1::9]):
        divisor = divisor_for(tried.alpha, tried.segment_exponent, amax, weights, SIZES)
        wanted = site_noise(found, divisor, factor)
        assert 10 * np.log10(tried.error / wanted) == pytest.approx(0.0, abs=0.4)
    assert chosen.error == min(tried.error for tried in chosen.tried)
    assert chosen.error < chosen.tried[0].error / 2, "outlier channels are worth a divisor"


def test_segments_of_unlike_range_get_an_exponent() -> None:
    found = linears(2, SOME_ROWS, SIZES, [30])
    scale = np.repeat(np.float32([1.0, 400.0]), SIZES)
    rows = np.random.default_rng(2).uniform(-1, 1, found.rows.shape).astype(np.float32) * scale
    columns = np.where(scale > 1.0, found.members[0].weight / 400, found.members[0].weight)
    own = replace(found.members[0], rows=rows, weight=columns.astype(np.float32))
    chosen = best_divisor(group([own], rows, SIZES), "static", WeightPlan())
    assert chosen.segment_exponent is not None or chosen.alpha is not None
    ratio = chosen.divisor[SIZES[0] :].mean() / chosen.divisor[: SIZES[0]].mean()
    assert ratio > 20


def test_even_channels_need_no_divisor() -> None:
    found = linears(3, 60, (24,), [40])
    signs = np.random.default_rng(3).choice([-1.0, 1.0], found.rows.shape).astype(np.float32)
    own = replace(found.members[0], rows=signs, weight=np.sign(found.members[0].weight))
    assert best_divisor(group([own], signs), "static", WeightPlan()).is_identity


def test_noise_counts_as_much_as_it_reaches_the_output() -> None:
    """Of two sites with unlike gains, one hears nothing: the errors are the other's."""
    found = linears(4, SOME_ROWS, SIZES, [30, 17])
    first, second = found.members
    deaf = replace(second, gains=np.zeros_like(second.gains))
    both = best_divisor(group([first, deaf], found.rows, SIZES), "static", WeightPlan())
    alone = best_divisor(group([first], found.rows, SIZES), "static", WeightPlan())
    assert both.tried[0].error == pytest.approx(alone.tried[0].error, rel=1e-9)
    loud = replace(first, gains=4 * first.gains)
    louder = best_divisor(group([loud], found.rows, SIZES), "static", WeightPlan())
    assert [c.error for c in louder.tried] == pytest.approx([4 * c.error for c in alone.tried])


def test_columns_of_a_grouped_convolution_see_their_own_channels() -> None:
    found = convolution(5, 6, (8, 4), 6, groups=3)
    own = found.members[0]
    repeated = np.repeat(np.arange(1, 13, dtype=np.float32), 9)
    columns = own_columns(own, repeated)
    assert columns.shape == own.weight.shape
    for n in range(6):
        assert columns[n].tolist() == np.repeat(np.arange(1, 5) + 4 * (n // 2), 9).tolist()
    plain = replace(own, site=replace(own.site, groups=1))
    assert own_columns(plain, repeated) is repeated
    assert own_columns(own, None) is None


def test_weight_noise_of_a_grouped_convolution_is_that_of_its_parts() -> None:
    found = convolution(6, 10, (8, 4), 6, groups=3)
    own = found.members[0]
    repeated = np.repeat(np.exp2(np.arange(12) % 5 - 2).astype(np.float32), 9)
    noise = weight_noise(own, repeated, WeightPlan(bits=4))
    wanted = np.zeros(3)
    for index in range(3):
        columns, rows = slice(36 * index, 36 * index + 36), slice(2 * index, 2 * index + 2)
        part = replace(
            own,
            site=replace(own.site, groups=1, in_features=4, out_features=2),
            rows=own.rows[..., columns],
            weight=own.weight[rows],
            gains=own.gains[:, rows],
            white=own.white[:, rows],
        )
        wanted += weight_noise(part, repeated[columns], WeightPlan(bits=4))
    np.testing.assert_allclose(noise, wanted, rtol=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_convolutions_have_divisors_too(groups: int) -> None:
    found = convolution(7, 30, (8, 4), 6, groups=groups)
    chosen = best_divisor(found, "static", WeightPlan())
    assert chosen.divisor.shape == (12,)
    assert chosen.error < chosen.tried[0].error
