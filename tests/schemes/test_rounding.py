"""Dispatch over ways of rounding, and the search for GPTQ's damping."""

from __future__ import annotations

import numpy as np
import pytest

from segquant_trt.records import WeightPlan
from segquant_trt.schemes.gptq import gptq
from segquant_trt.schemes.gram import gram, output_energy
from segquant_trt.schemes.rounding import DAMPINGS, optimise_weight, search_damping
from segquant_trt.schemes.weights import quantize_weight


def site(seed: int, *, directions: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((directions, 96)) / np.sqrt(directions)
    x = random.standard_normal((2000, directions)) @ mixing
    x += noise * random.standard_normal(x.shape)
    return x.astype(np.float32), random.standard_normal((40, 96)).astype(np.float32)


def test_nearest_weighs_errors_as_the_inputs_do() -> None:
    x, w = site(1, directions=20, noise=0.1)
    x[:, :5] *= 20.0
    matrix = gram(x)
    plan = WeightPlan(bits=4, scale_method="mse")
    found = optimise_weight(w, plan, matrix)
    plain = quantize_weight(w, plan)
    weighed = np.diagonal(matrix)
    cost = [(weighed * np.square(q.dequantize() - w)).sum() for q in (found, plain)]
    assert cost[0] < cost[1]
    absmax = optimise_weight(w, WeightPlan(bits=4), matrix)
    np.testing.assert_array_equal(absmax.codes, quantize_weight(w, WeightPlan(bits=4)).codes)


def test_gptq_without_held_out_rows() -> None:
    x, w = site(2, directions=20, noise=0.1)
    plan = WeightPlan(bits=4, block=32, rounding="gptq")
    smallest = np.full(40, 0.4, dtype=np.float32)
    found = optimise_weight(w, plan, gram(x), smallest=smallest)
    wanted = gptq(w, gram(x), plan, smallest=smallest)
    np.testing.assert_array_equal(found.codes, wanted.codes)
    np.testing.assert_array_equal(found.scale, wanted.scale)


@pytest.mark.parametrize(("directions", "noise"), [(12, 0.05), (80, 1.0)])
@pytest.mark.parametrize("sampled", [7, 512])
def test_the_damping_is_the_best_on_held_out_rows(directions, noise, sampled, monkeypatch) -> None:
    monkeypatch.setattr("segquant_trt.schemes.rounding._SAMPLED_ROWS", sampled)
    x, w = site(3, directions=directions, noise=noise)
    plan = WeightPlan(bits=4, scale_method="mse", rounding="gptq")
    seen, held_out = gram(x[:100]), gram(x[100:200])
    errors = {
        damping: output_energy(w - gptq(w, seen, plan, damping=damping).dequantize(), held_out)
        for damping in DAMPINGS
    }
    chosen = search_damping(w, plan, seen, held_out)
    assert chosen == min(errors, key=errors.__getitem__)
    found = optimise_weight(w, plan, seen, held_out=held_out)
    wanted = gptq(w, gram(x[:200]), plan, damping=chosen)
    np.testing.assert_array_equal(found.codes, wanted.codes)


def test_few_rows_of_nearly_white_inputs_do_not_end_up_behind_nearest() -> None:
    x, w = site(4, directions=80, noise=1.0)
    plan = WeightPlan(bits=4, scale_method="mse", rounding="gptq")
    seen, held_out, unseen = gram(x[:60]), gram(x[60:120]), gram(x[120:])
    errors = {
        name: output_energy(w - q.dequantize(), unseen)
        for name, q in {
            "nearest": quantize_weight(w, plan),
            "default": gptq(w, seen + held_out, plan),
            "searched": optimise_weight(w, plan, seen, held_out=held_out),
        }.items()
    }
    assert errors["default"] > 1.2 * errors["nearest"]
    assert errors["searched"] < 1.05 * errors["nearest"]
