"""GPTQ, against an optimal-brain elimination that inverts the matrix and shrinks it by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import WeightPlan
from segquant_trt.schemes.gptq import gptq, unit_factor
from segquant_trt.schemes.gram import gram, output_energy
from segquant_trt.schemes.weights import quantize_weight, weight_scale

PLANS = [
    WeightPlan(bits=bits, block=block, scale_method=method, rounding="gptq")
    for bits, block, method in [
        (4, None, "absmax"),
        (4, 16, "mse"),
        (8, None, "mse"),
        (8, 7, "mse"),
    ]
]
MULTIPLES = (1.0, 0.95, 1.05, 0.9, 1.1, 0.84, 1.16)
IDS = [f"{p.bits}-{p.block}-{p.scale_method}" for p in PLANS]


def correlated(seed: int, count: int, width: int, *, noise: float = 0.3) -> np.ndarray:
    """Inputs of a quarter as many directions as channels, plus noise, channels of unlike size."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((max(width // 4, 1), width))
    x = random.standard_normal((count, len(mixing))) @ mixing / np.sqrt(len(mixing))
    x += noise * random.standard_normal(x.shape)
    return (x * np.exp(0.7 * random.standard_normal(width))).astype(np.float32)


def weight(seed: int, channels: int, width: int) -> np.ndarray:
    random = np.random.default_rng(seed + 1000)
    return random.standard_t(5, (channels, width)).astype(np.float32)


def sqnr_db(w: np.ndarray, decoded: np.ndarray, matrix: np.ndarray) -> float:
    return 10 * np.log10(output_energy(w, matrix) / output_energy(w - decoded, matrix))


def by_elimination(
    w: np.ndarray, matrix: np.ndarray, plan: WeightPlan, scale: np.ndarray, damping: float, order
) -> np.ndarray:
    """Optimal brain quantisation, one column after the other: eliminate it from the inverse."""
    width = w.shape[1]
    h = matrix + damping * np.diag(np.diag(matrix))
    columns = np.argsort(-np.diag(h), kind="stable") if order == "activation" else range(width)
    inverse = np.linalg.inv(h)
    left = w.astype(np.float64)
    codes = np.zeros(w.shape, dtype=np.int64)
    limit = {4: 7, 8: 127}[plan.bits]
    for j in columns:
        step = scale if plan.block is None else scale[:, j // plan.block]
        codes[:, j] = np.clip(np.rint(left[:, j].astype(np.float32) / step), -limit, limit)
        error = (left[:, j] - codes[:, j] * step.astype(np.float64)) / inverse[j, j]
        left -= np.outer(error, inverse[j])
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
        inverse[j] = inverse[:, j] = 0.0
    return codes


def cost(w: np.ndarray, codes: np.ndarray, scale: np.ndarray, h: np.ndarray) -> np.ndarray:
    """What each output channel's error costs under `h`; `scale` is one per weight."""
    error = w - codes * scale
    return np.einsum("nk,kl,nl->n", error, h, error)


def spread(scale: np.ndarray, plan: WeightPlan, width: int) -> np.ndarray:
    """The scale of every weight, float64."""
    wide = scale.astype(np.float64).reshape(len(scale), -1)
    return np.repeat(wide, plan.block or width, axis=1)[:, :width]


@pytest.mark.parametrize("plan", PLANS, ids=IDS)
@pytest.mark.parametrize("order", ["activation", "natural"])
@pytest.mark.parametrize("batch", [1, 8, 128])
def test_it_equals_elimination_column_by_column(plan, order, batch: int) -> None:
    w, matrix = weight(1, 9, 37), gram(correlated(1, 300, 37))
    scale = weight_scale(w, plan, importance=np.diagonal(matrix))
    found = gptq(w, matrix, plan, damping=0.02, batch=batch, order=order, scale=scale)
    wanted = by_elimination(w, matrix, plan, scale, 0.02, order)
    np.testing.assert_array_equal(found.codes, wanted)
    np.testing.assert_array_equal(found.scale, scale)


@pytest.mark.parametrize("block", [None, 16])
@pytest.mark.parametrize("order", ["activation", "natural"])
def test_four_bits_take_the_cheapest_multiple_of_the_scales_and_refit_it(block, order) -> None:
    plan = WeightPlan(bits=4, block=block, scale_method="mse")
    w, matrix = weight(21, 9, 37), gram(correlated(21, 300, 37))
    h = matrix + 0.02 * np.diag(np.diag(matrix))
    base = weight_scale(w, plan, importance=np.diagonal(matrix))
    trials = []
    for multiple in MULTIPLES:
        scale = base * np.float32(multiple)
        codes = by_elimination(w, matrix, plan, scale, 0.02, order)
        trials.append((cost(w, codes, spread(scale, plan, 37), h), codes, scale))
    best = np.argmin([own for own, _, _ in trials], axis=0)
    assert len(set(best)) > 2, "one multiple is best everywhere"
    found = gptq(w, matrix, plan, damping=0.02, order=order)
    np.testing.assert_array_equal(found.codes, [trials[b][1][n] for n, b in enumerate(best)])
    for n, b in enumerate(best):
        scale = spread(trials[b][2][n : n + 1], plan, 37)[0]
        for start in range(0, 37, block or 37):  # each block's optimum, given those before it
            own = slice(start, start + (block or 37))
            q = np.where(np.isin(np.arange(37), np.arange(37)[own]), found.codes[n], 0.0)
            rest = w[n] - np.where(q != 0.0, 0.0, found.codes[n] * scale)
            scale[own] = (q @ h @ rest) / (q @ h @ q)
        np.testing.assert_allclose(spread(found.scale[n : n + 1], plan, 37)[0], scale, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    width=st.integers(1, 40),
    block=st.sampled_from([None, 7, 16]),
    damping=st.sampled_from([0.0, 0.03, 1.0]),
)
def test_no_channel_is_worse_off_for_the_search(seed, width, block, damping) -> None:
    w, matrix = weight(seed, 5, width), gram(correlated(seed, 200, width))
    plan = WeightPlan(bits=4, block=block, scale_method="mse")
    h = matrix + damping * np.diag(np.diag(matrix))
    fixed = gptq(
        w, matrix, plan, damping=damping,
        scale=weight_scale(w, plan, importance=np.diagonal(matrix)),
    )  # fmt: skip
    searched = gptq(w, matrix, plan, damping=damping)
    before, after = (cost(w, q.codes, spread(q.scale, plan, width), h) for q in (fixed, searched))
    assert (after <= before * (1 + 1e-5) + 1e-9 * np.einsum("nk,kl,nl->n", w, h, w)).all()


@pytest.mark.parametrize("block", [None, 32])
def test_searched_scales_help_on_rows_that_were_not_seen(block) -> None:
    w, x = weight(22, 64, 129), correlated(22, 4000, 129)
    plan = WeightPlan(bits=4, block=block, scale_method="mse")
    seen, unseen = gram(x[:3000]), gram(x[3000:])
    scale = weight_scale(w, plan, importance=np.diagonal(seen))
    fixed, searched = gptq(w, seen, plan, scale=scale), gptq(w, seen, plan)
    gain = sqnr_db(w, searched.dequantize(), unseen) - sqnr_db(w, fixed.dequantize(), unseen)
    assert gain > 0.2


def test_eight_bits_and_full_ranges_are_not_searched() -> None:
    w, matrix = weight(23, 9, 37), gram(correlated(23, 300, 37))
    energy = np.diagonal(matrix)
    for plan in (WeightPlan(bits=8, scale_method="mse"), WeightPlan(bits=4)):
        wanted = weight_scale(w, plan, importance=energy)
        np.testing.assert_array_equal(gptq(w, matrix, plan).scale, wanted)


@pytest.mark.parametrize("plan", PLANS, ids=IDS)
@pytest.mark.parametrize("order", ["activation", "natural"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 17), (17, 1), (3, 1025)])
def test_an_identity_matrix_gives_round_to_nearest(plan, order, shape) -> None:
    w = weight(2, *shape)
    wanted = quantize_weight(w, plan)
    found = gptq(w, np.eye(shape[1]), plan, order=order, scale=wanted.scale)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.scale, wanted.scale)
    np.testing.assert_array_equal(found.dequantize(), wanted.dequantize())


@pytest.mark.parametrize("plan", PLANS, ids=IDS)
def test_uncorrelated_inputs_give_round_to_nearest(plan) -> None:
    w, energy = weight(3, 6, 50), np.random.default_rng(3).uniform(0.1, 99, 50)
    wanted = quantize_weight(w, plan, importance=energy)
    found = gptq(w, np.diag(energy), plan, scale=wanted.scale)
    np.testing.assert_array_equal(found.codes, wanted.codes)


@pytest.mark.parametrize("bits", [4, 8])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), block=st.sampled_from([None, 16]))
def test_correlated_inputs_gain_over_nearest(bits, seed: int, block: int | None) -> None:
    w, x = weight(seed, 16, 65), correlated(seed, 1200, 65)
    plan = WeightPlan(bits=bits, block=block, scale_method="mse")
    seen, unseen = gram(x[:800]), gram(x[800:])
    nearest = quantize_weight(w, plan, importance=np.diagonal(seen))
    better = gptq(w, seen, plan)
    for matrix in (seen, unseen):
        assert sqnr_db(w, better.dequantize(), matrix) > sqnr_db(w, nearest.dequantize(), matrix)


@pytest.mark.parametrize("block", [None, 64])
def test_int4_gains_several_decibels_on_rows_it_has_not_seen(block: int | None) -> None:
    w, x = weight(4, 64, 257), correlated(4, 4000, 257)
    plan = WeightPlan(bits=4, block=block, scale_method="mse")
    seen, unseen = gram(x[:3000]), gram(x[3000:])
    found = {
        "nearest": quantize_weight(w, plan),
        "natural": gptq(w, seen, plan, order="natural"),
        "activation": gptq(w, seen, plan),
    }
    db = {name: sqnr_db(w, q.dequantize(), unseen) for name, q in found.items()}
    print({name: round(value, 2) for name, value in db.items()})
    assert db["natural"] > db["nearest"] + 4.0
    assert db["activation"] > db["natural"] + 1.0


@pytest.mark.parametrize("width", [1, 2, 33])
def test_the_factor_inverts_the_upper_cholesky_factor_of_the_inverse(width: int) -> None:
    matrix = gram(correlated(5, 90, width))
    energy = np.diagonal(matrix).copy()
    order = np.random.default_rng(5).permutation(width)
    h = matrix + 0.01 * np.diag(energy)
    upper = np.linalg.cholesky(np.linalg.inv(h)[np.ix_(order, order)]).T
    r = np.linalg.inv(upper)
    found, weights = unit_factor(matrix, energy, order[::-1], 0.01)
    np.testing.assert_allclose(found[::-1, ::-1], (r / np.diag(r)).T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weights[::-1], np.diag(r) ** 2, rtol=1e-6)


def test_dead_channels_are_rounded_to_nearest_and_disturb_nothing() -> None:
    w, x = weight(6, 8, 40), correlated(6, 500, 40)
    dead = np.array([0, 7, 39])
    alive = np.setdiff1d(np.arange(40), dead)
    x[:, dead] = 0.0
    w[:, dead] *= 0.1
    plan = WeightPlan(bits=4)
    found = gptq(w, gram(x), plan, damping=0.0)
    np.testing.assert_array_equal(found.codes[:, dead], quantize_weight(w, plan).codes[:, dead])
    without = gptq(w[:, alive], gram(x[:, alive]), plan, damping=0.0)
    np.testing.assert_array_equal(found.codes[:, alive], without.codes)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_inputs_that_were_never_active_give_round_to_nearest(damping: float) -> None:
    w, plan = weight(7, 4, 17), WeightPlan(bits=4, scale_method="mse")
    found = gptq(w, np.zeros((17, 17)), plan, damping=damping)
    np.testing.assert_array_equal(found.codes, quantize_weight(w, plan).codes)


def test_fewer_rows_than_channels_need_no_damping_of_their_own() -> None:
    w, x = weight(8, 12, 64), correlated(8, 20, 64, noise=0.0)
    plan, matrix = WeightPlan(bits=4), gram(x)
    found = gptq(w, matrix, plan, damping=0.0)
    nearest = quantize_weight(w, plan)
    assert sqnr_db(w, found.dequantize(), matrix) > sqnr_db(w, nearest.dequantize(), matrix) + 10


def test_zero_rows_and_huge_weights() -> None:
    w, matrix = weight(9, 10, 50), gram(correlated(9, 400, 50))
    w[2] = 0.0
    w[3, 11] = 1e5
    plan = WeightPlan(bits=4, block=16)
    found, nearest = gptq(w, matrix, plan), quantize_weight(w, plan)
    assert not found.codes[2].any()
    assert np.abs(found.codes).max() == 7
    assert sqnr_db(w, found.dequantize(), matrix) > sqnr_db(w, nearest.dequantize(), matrix) + 3


@pytest.mark.parametrize(("size", "gain_db"), [(10, 5.0), (100, 4.0), (1000, 0.5)])
@pytest.mark.parametrize("method", ["absmax", "mse"])
def test_massive_channels_do_not_drown_the_others(size: int, gain_db: float, method) -> None:
    """Damping by a share of the mean energy does: at 100 nearly all of the gain is gone."""
    w, x = weight(15, 32, 120), correlated(15, 3000, 120)
    x[:, [20, 77]] *= np.float32(size)
    plan = WeightPlan(bits=4, scale_method=method)
    seen, unseen = gram(x[:2000]), gram(x[2000:])
    nearest = quantize_weight(w, plan, importance=np.diagonal(seen))
    db = [sqnr_db(w, q.dequantize(), unseen) for q in (gptq(w, seen, plan), nearest)]
    assert db[0] > db[1] + gain_db


def test_the_same_bytes_every_time_and_units_do_not_matter() -> None:
    w, matrix = weight(10, 20, 130), gram(correlated(10, 500, 130))
    plan = WeightPlan(bits=4, block=32, scale_method="mse")
    first, second = gptq(w, matrix, plan), gptq(w, matrix.copy(), plan)
    assert first.codes.tobytes() == second.codes.tobytes()
    assert first.scale.tobytes() == second.scale.tobytes()
    other = gptq(np.ldexp(w, -20), np.ldexp(matrix, 60), plan)
    np.testing.assert_array_equal(first.codes, other.codes)
    np.testing.assert_array_equal(np.ldexp(first.scale, -20), other.scale)


def test_rows_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that weights reading one input may be stacked, and chunks of rows do not show."""
    w, matrix = weight(11, 23, 45), gram(correlated(11, 300, 45))
    plan = WeightPlan(bits=4, scale_method="mse")
    whole = gptq(w, matrix, plan)
    np.testing.assert_array_equal(gptq(w[5:9], matrix, plan).codes, whole.codes[5:9])
    monkeypatch.setattr("segquant_trt.schemes.gptq._ROWS", 4)
    np.testing.assert_array_equal(gptq(w, matrix, plan).codes, whole.codes)


def test_arguments_are_left_alone() -> None:
    w, matrix = weight(12, 5, 30), gram(correlated(12, 100, 30))
    copies = w.copy(), matrix.copy()
    gptq(w, matrix, WeightPlan(bits=4))
    np.testing.assert_array_equal(w, copies[0])
    np.testing.assert_array_equal(matrix, copies[1])


@pytest.mark.parametrize("block", [None, 16])
def test_scales_are_at_least_the_smallest(block) -> None:
    w, matrix = weight(13, 6, 40), gram(correlated(13, 200, 40))
    plan = WeightPlan(bits=4, block=block, scale_method="mse")
    free = weight_scale(w, plan).reshape(6, -1).max(axis=1)
    found = gptq(w, matrix, plan, smallest=2 * free)
    assert (found.scale.reshape(6, -1) >= 2 * free[:, None]).all()
    assert sqnr_db(w, found.dequantize(), matrix) > 5


def test_a_matrix_that_is_not_finite_is_refused() -> None:
    matrix = np.eye(3)
    matrix[1, 1] = np.nan
    with pytest.raises(SegQuantError, match="NaN or infinity"):
        gptq(weight(14, 2, 3), matrix, WeightPlan(bits=4))
