"""Fitted segments and their errors, against the reference with weights that change nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from segquant_trt.records import PerStep, PerToken, Smoothing, Static, Treatment, WeightPlan
from segquant_trt.schemes import QuantizedWeight, fake_quantize, row_factor, site_output
from segquant_trt.score.coding import coding_error, fit_segments
from segquant_trt.score.group import Group
from tests.score.groups import EDGES, convolution, group, linears, steps_of

SIZES = (9, 17, 5)
ROUNDED = ("symmetric", "shifted")
EVERY = (*ROUNDED, "dual_scale", "dual_full")


def identity(sizes, divisor, taps: int) -> tuple[QuantizedWeight, ...]:
    """Codes of the identity matrix times the divisor, exact."""
    width = sum(sizes) * taps
    d = np.ones(width, np.float32) if divisor is None else np.repeat(divisor, taps)
    codes = np.eye(width, dtype=np.int8)
    ends = np.cumsum([0, *sizes]) * taps
    # Row n is d[n] in column n: its scale is the only one that matters.
    return tuple(QuantizedWeight(codes=codes[:, a:b], scale=d) for a, b in pairwise(ends))


def through_the_site(found: Group, segments, divisor, taps: int) -> np.ndarray:
    """Decoded minus exact inputs by the reference: [B, R, C * taps]."""
    rows = found.members[0].rows
    smoothing = Smoothing(divisor="d", alpha=None, segment_exponent=None)
    treatment = Treatment(
        segments=segments,
        smoothing=None if divisor is None else smoothing,
        weight=WeightPlan(),
    )
    flat = rows.reshape(-1, rows.shape[-1])
    codes = identity([part.channels for part in segments], divisor, taps)
    steps = steps_of(found.edges or (0.0,), rows.shape[1])
    arrays = {} if divisor is None else {"d": divisor}
    output = site_output(flat, codes, treatment, arrays, timestep=steps, taps=taps)
    return output.reshape(rows.shape) - rows


@pytest.mark.parametrize("smooth", [False, True], ids=["plain", "smoothed"])
@pytest.mark.parametrize("sizes", [(31,), SIZES], ids=["whole", "split"])
@pytest.mark.parametrize("factor", ["static", "per_token", "per_step"])
@pytest.mark.parametrize("method", ["amax", "mse"])
def test_errors_of_linears_are_the_references(method, factor, sizes, smooth: bool) -> None:
    found = linears(1, 23, SIZES, [4])
    random = np.random.default_rng(2)
    divisor = np.exp(random.normal(0, 1, 31)).astype(np.float32) if smooth else None
    kinds = [ROUNDED if i % 2 == 0 else EVERY for i in range(len(sizes))]
    segments = fit_segments(found, divisor, sizes, factor, kinds, method)
    assert [part.channels for part in segments] == list(sizes)
    assert {part.factor.kind for part in segments} == {factor}
    error = coding_error(found.members[0].rows, divisor, segments, taps=1)
    wanted = through_the_site(found, segments, divisor, 1)
    np.testing.assert_allclose(error, wanted, atol=2e-6 * np.abs(found.rows).max())
    assert np.abs(error).max() > 1e-4


@pytest.mark.parametrize("factor", ["static", "per_step"])
@pytest.mark.parametrize("sizes", [(31,), SIZES], ids=["whole", "split"])
def test_errors_of_convolutions_are_the_references(factor, sizes) -> None:
    found = convolution(3, 11, SIZES, 4)
    divisor = np.exp(np.random.default_rng(4).normal(0, 1, 31)).astype(np.float32)
    kinds = [EVERY] * len(sizes)
    segments = fit_segments(found, divisor, sizes, factor, kinds, "mse")
    error = coding_error(found.members[0].rows, divisor, segments, taps=9)
    wanted = through_the_site(found, segments, divisor, 9)
    np.testing.assert_allclose(error, wanted, atol=2e-6 * np.abs(found.members[0].rows).max())


@pytest.mark.parametrize("factor", ["static", "per_token", "per_step"])
@pytest.mark.parametrize("smooth", [False, True], ids=["plain", "smoothed"])
def test_every_segment_takes_the_scheme_of_least_error(factor, smooth: bool) -> None:
    """By brute force: errors are of the smoothed values, before they are divided by a factor."""
    found = linears(5, 40, SIZES, [4])
    divisor = np.exp(np.random.default_rng(6).normal(0, 1, 31)).astype(np.float32)
    chosen = divisor if smooth else None
    best = fit_segments(found, chosen, SIZES, factor, [EVERY] * 3, "mse")
    d = divisor if smooth else np.ones(31, np.float32)
    power: dict[str, list[float]] = {}
    for kind in EVERY:
        alone = fit_segments(found, chosen, SIZES, factor, [(kind,)] * 3, "mse")
        error = coding_error(found.rows, chosen, alone, taps=1).astype(np.float64) / d
        parts = np.split(error, np.cumsum(SIZES)[:-1], axis=-1)
        power[kind] = [float(np.square(part).sum()) for part in parts]
    for index, part in enumerate(best):
        kind = min(EVERY, key=lambda name, i=index: power[name][i])
        assert part.activation.kind == kind
    assert power["dual_full"][1] < power["symmetric"][1] / 3, "one polarity prevails there"


def test_a_divisor_is_as_good_as_a_divided_input() -> None:
    found = linears(7, 20, SIZES, [4])
    divisor = np.exp2(np.random.default_rng(8).integers(-3, 4, 31)).astype(np.float32)
    divided = group(found.members, found.rows / divisor, SIZES)
    for factor in ("static", "per_token", "per_step"):
        kinds = [EVERY] * 3
        first = fit_segments(found, divisor, SIZES, factor, kinds, "mse")
        assert first == fit_segments(divided, None, SIZES, factor, kinds, "mse")


def test_factors_per_step_are_the_largest_magnitudes_that_calibration_saw() -> None:
    """Also those of rows that were not kept."""
    found = linears(9, 20, SIZES, [4])
    low, high = found.low.copy(), found.high.copy()
    high[1, 12], low[2, 30] = 999.0, -777.0
    seen = Group(
        tensor="x", members=found.members, rows=found.rows, low=low, high=high,
        segments=SIZES, polar=frozenset(), edges=EDGES,
    )  # fmt: skip
    segments = fit_segments(seen, None, SIZES, "per_step", [ROUNDED] * 3, "amax")
    factor = segments[1].factor
    assert isinstance(factor, PerStep)
    assert factor.edges == EDGES
    assert factor.factors[1] == 999.0
    assert segments[2].factor.factors[2] == 777.0
    static = fit_segments(seen, None, (31,), "static", [("symmetric",)], "amax")
    assert static[0].activation.scale == pytest.approx(999.0 / 127)


@pytest.mark.parametrize("factor", ["static", "per_token", "per_step"])
def test_inputs_of_zeros_have_usable_codes(factor) -> None:
    found = linears(11, 6, SIZES, [4])
    rows = np.zeros_like(found.rows)
    silent = group(found.members, rows, SIZES)
    segments = fit_segments(silent, None, SIZES, factor, [EVERY] * 3, "mse")
    assert not coding_error(rows, None, segments, taps=1).any()
    for part in segments:
        assert (row_factor(rows[0, :, :9], part.factor, timestep=5.0) > 0).all()
        assert np.isfinite(fake_quantize(found.rows, part.activation)).all()


def test_one_bin_without_edges_is_static_or_per_token() -> None:
    found = linears(12, 6, SIZES, [4])
    lone = group(found.members, found.rows[:1], SIZES, edges=())
    for kind, record in (("static", Static), ("per_token", PerToken)):
        segments = fit_segments(lone, None, SIZES, kind, [ROUNDED] * 3, "mse")
        assert all(isinstance(part.factor, record) for part in segments)
