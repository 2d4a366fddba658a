"""Weight codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.records import WeightPlan
from segquant_trt.schemes import quantize_weight


def rows(seed: int, channels: int = 5, width: int = 37) -> np.ndarray:
    random = np.random.default_rng(seed)
    spread = 10.0 ** random.uniform(-3, 2, (channels, 1))
    return (random.standard_normal((channels, width)) * spread).astype(np.float32)


@given(seed=st.integers(0, 2**20))
def test_absmax_error_is_half_a_step(seed: int) -> None:
    w = rows(seed)
    found = quantize_weight(w, WeightPlan())
    np.testing.assert_allclose(found.scale, np.abs(w).max(axis=1) / 127, rtol=1e-6)
    assert np.abs(found.codes).max(axis=1).tolist() == [127] * len(w)
    assert (np.abs(found.dequantize() - w) <= found.scale[:, None] * 0.50001).all()


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


def test_zero_channels_and_tiny_ones() -> None:
    w = rows(3)
    w[1] = 0.0
    w[2] = 1e-42
    found = quantize_weight(w, WeightPlan())
    assert found.scale[1] == 1.0
    assert not found.codes[1].any()
    assert (found.scale > 0).all()
    assert np.isfinite(found.dequantize()).all()


@pytest.mark.parametrize("method", ["absmax", "mse"])
def test_blocks_do_not_show(method, monkeypatch: pytest.MonkeyPatch) -> None:
    w = rows(4, channels=23)
    whole = quantize_weight(w, WeightPlan(scale_method=method))
    monkeypatch.setattr("segquant_trt.schemes.weights._BLOCK_ELEMENTS", 80)
    parts = quantize_weight(w, WeightPlan(scale_method=method))
    np.testing.assert_array_equal(whole.codes, parts.codes)
    np.testing.assert_array_equal(whole.scale, parts.scale)
