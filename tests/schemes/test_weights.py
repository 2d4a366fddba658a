"""Weight codes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import WeightPlan
from segquant_trt.schemes.weights import quantize_weight, weight_scale

FORMS = [(8, None), (4, None), (8, 16), (4, 32)]


def rows(seed: int, channels: int = 5, width: int = 37) -> np.ndarray:
    random = np.random.default_rng(seed)
    spread = 10.0 ** random.uniform(-3, 2, (channels, 1))
    return (random.standard_normal((channels, width)) * spread).astype(np.float32)


def nearest_by_loops(w: np.ndarray, bits: int, block: int | None) -> tuple[list, list]:
    """Codes and scales of every channel and block, one number at a time."""
    limit = {4: 7, 8: 127}[bits]
    codes, scales = [], []
    for channel in w:
        size = block or len(channel)
        parts = [channel[start : start + size] for start in range(0, len(channel), size)]
        steps = [np.float32(max(abs(v) for v in part)) / np.float32(limit) for part in parts]
        scales.append([step if step > 0 else np.float32(1) for step in steps])
        codes.append(
            [
                max(-limit, min(limit, round(float(np.float32(value) / step))))
                for part, step in zip(parts, scales[-1], strict=True)
                for value in part
            ]
        )
    return codes, scales


@given(seed=st.integers(0, 2**20))
def test_absmax_error_is_half_a_step(seed: int) -> None:
    w = rows(seed)
    found = quantize_weight(w, WeightPlan())
    np.testing.assert_allclose(found.scale, np.abs(w).max(axis=1) / 127, rtol=1e-6)
    assert np.abs(found.codes).max(axis=1).tolist() == [127] * len(w)
    assert (np.abs(found.dequantize() - w) <= found.scale[:, None] * 0.50001).all()


@pytest.mark.parametrize(("bits", "block"), [*FORMS, (4, 1), (4, 5000)])
@pytest.mark.parametrize("width", [1, 17, 1025])
@pytest.mark.parametrize("channels", [1, 7])
def test_absmax_equals_loops(bits, block, width: int, channels: int) -> None:
    w = rows(width, channels, width)
    w[0, : width // 2] = 0.0
    found = quantize_weight(w, WeightPlan(bits=bits, block=block))
    codes, scales = nearest_by_loops(w, bits, block)
    assert found.codes.tolist() == codes
    wanted = np.array(scales, dtype=np.float32)
    np.testing.assert_array_equal(found.scale, wanted[:, 0] if block is None else wanted)
    spread = np.repeat(wanted, block or width, axis=1)[:, :width]
    np.testing.assert_array_equal(found.dequantize(), np.float32(codes) * spread)


@given(seed=st.integers(0, 2**20))
def test_searched_scales_are_no_worse(seed: int) -> None:
    w = rows(seed)
    w[0, 0] = 20 * np.abs(w[0]).max()
    errors = {
        method: np.square(quantize_weight(w, WeightPlan(scale_method=method)).dequantize() - w).sum(
            axis=1
        )
        for method in ("absmax", "mse")
    }
    assert (errors["mse"] <= errors["absmax"] * 1.0001).all()


@pytest.mark.parametrize(("bits", "within"), [(8, 1.1), (4, 1.04)])
@pytest.mark.parametrize("kind", ["normal", "heavy", "outlier"])
def test_the_search_comes_close_to_the_best_of_thousands_of_scales(bits, within, kind) -> None:
    random = np.random.default_rng(5)
    w = random.standard_t(3, (6, 515)) if kind == "heavy" else random.standard_normal((6, 515))
    if kind == "outlier":
        w[:, 3] = 40.0
    w = w.astype(np.float32)
    found = quantize_weight(w, WeightPlan(bits=bits, scale_method="mse"))
    limit = 2 ** (bits - 1) - 1
    for channel, decoded in zip(w.astype(np.float64), found.dequantize(), strict=True):
        best = min(
            np.square(np.clip(np.rint(channel / step), -limit, limit) * step - channel).sum()
            for step in np.abs(channel).max() / limit * np.geomspace(0.05, 1.1, 3000)
        )
        assert np.square(decoded - channel).sum() <= within * best


def test_importance_decides_what_the_search_protects() -> None:
    w = rows(8, channels=9, width=64)
    w[:, 5] *= 30.0
    importance = np.ones(64)
    plan = WeightPlan(bits=4, block=16, scale_method="mse")
    plain = quantize_weight(w, plan)
    equal = quantize_weight(w, plan, importance=importance * 1e30)
    np.testing.assert_array_equal(plain.codes, equal.codes)
    importance[5] = 1e4
    careful = quantize_weight(w, plan, importance=importance)
    cost = [(importance * np.square(q.dequantize() - w)).sum() for q in (plain, careful)]
    assert cost[1] < 0.8 * cost[0]
    ignored = quantize_weight(w, plan, importance=np.zeros(64))
    np.testing.assert_array_equal(ignored.scale, weight_scale(w, WeightPlan(bits=4, block=16)))


@pytest.mark.parametrize(("bits", "block"), FORMS)
@pytest.mark.parametrize("method", ["absmax", "mse"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**20), power=st.integers(-90, 90))
def test_units_do_not_matter(bits, block, method, seed: int, power: int) -> None:
    """Squares of the errors are far beyond float32's range at either end."""
    w = rows(seed)
    plan = WeightPlan(bits=bits, block=block, scale_method=method)
    here, there = quantize_weight(w, plan), quantize_weight(np.ldexp(w, power), plan)
    np.testing.assert_array_equal(here.codes, there.codes)
    np.testing.assert_array_equal(np.ldexp(here.scale, power), there.scale)


@pytest.mark.parametrize("method", ["absmax", "mse"])
def test_zero_channels_and_tiny_ones(method) -> None:
    w = rows(3)
    w[1] = 0.0
    w[2] = 1e-42
    found = quantize_weight(w, WeightPlan(scale_method=method))
    assert found.scale[1] == 1.0
    assert not found.codes[1].any()
    assert (found.scale > 0).all()
    assert np.isfinite(found.dequantize()).all()


@pytest.mark.parametrize("method", ["absmax", "mse"])
def test_a_block_keeps_an_outlier_to_itself(method) -> None:
    w = rows(6, width=70)
    plan = WeightPlan(bits=4, block=32, scale_method=method)
    before = quantize_weight(w, plan)
    w[:, 40] = 1e6
    after = quantize_weight(w, plan)
    others = np.r_[0:32, 64:70]
    np.testing.assert_array_equal(before.codes[:, others], after.codes[:, others])
    assert np.abs(after.dequantize() - w)[:, 40].max() <= 0.5e6 / 7


@pytest.mark.parametrize("method", ["absmax", "mse"])
@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_scales_are_at_least_the_smallest(bits, block, method) -> None:
    w = rows(9, channels=4)
    plan = WeightPlan(bits=bits, block=block, scale_method=method)
    free = quantize_weight(w, plan)
    smallest = free.scale.reshape(4, -1).max(axis=1) * np.float32([0.0, 1.0, 3.0, 1e6])
    held = quantize_weight(w, plan, smallest=smallest)
    scale = held.scale.reshape(4, -1)
    assert (scale >= smallest[:, None]).all()
    np.testing.assert_array_equal(held.codes[0], free.codes[0])
    assert (scale[2:] <= 1.1 * smallest[2:, None]).all()
    assert not held.codes[3].any()


@pytest.mark.parametrize("block", [None, 8])
@pytest.mark.parametrize("method", ["absmax", "mse"])
def test_chunks_do_not_show(method, block, monkeypatch: pytest.MonkeyPatch) -> None:
    w = rows(4, channels=23)
    plan = WeightPlan(scale_method=method, block=block)
    whole = quantize_weight(w, plan)
    monkeypatch.setattr("segquant_trt.schemes.weights._CHUNK_ELEMENTS", 80)
    parts = quantize_weight(w, plan)
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(whole.scale, parts.scale)


@pytest.mark.parametrize("block", [None, 60])
def test_memory_is_that_of_the_codes_and_a_few_chunks(block) -> None:
    w = rows(7, channels=3000, width=1025)
    tracemalloc.start()
    try:
        found = quantize_weight(w, WeightPlan(bits=4, block=block, scale_method="mse"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < found.codes.nbytes + found.scale.nbytes + 4 * 2**20


def test_an_impossible_block_is_refused() -> None:
    with pytest.raises(SegQuantError, match="block 0 is impossible"):
        quantize_weight(rows(1), WeightPlan(block=0))
