"""Plans of the benchmark of four-bit weights: what is held fixed, and what is expected of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.ablation.weights4 import (
    METHODS,
    NEAREST,
    Fixed,
    expected_db,
    rounded_anew,
    table,
    with_fixed,
)
from segquant_trt.plan import PlanRequest
from segquant_trt.records import WeightPlan
from tests.plan.made_up import facts_of, option, plan, score, scores_of, site, treatment

FULL = WeightPlan(bits=4)
MSE = WeightPlan(bits=4, scale_method="mse", codes="w-1")
GPTQ = WeightPlan(bits=4, rounding="gptq", scale_method="mse", codes="w-2")
NOISE = {"full": 9e-4, "mse": 8e-4, "gptq": 3e-4}


def options(quieter: float = 1.0):
    """Shifted codes are quieter than symmetric ones, smoothed ones quieter still."""
    found = []
    for name, weight in (("full", FULL), ("mse", MSE), ("gptq", GPTQ)):
        noise = NOISE[name] * quieter
        found += [
            option(treatment("symmetric", weight=weight), 2 * noise),
            option(treatment("shifted", weight=weight), noise),
            replace(option(treatment("shifted", weight=weight), noise / 3), ranges="amax"),
            option(treatment("shifted", weight=weight, smooth=True), noise / 2),
            option(treatment("shifted", weight=weight, factor="per_token"), noise / 9),
            option(treatment("shifted", "dual_full", weight=weight), noise / 9),
        ]
    return found


SITES = [site("q", activation="x"), site("k", activation="x"), site("out")]
SCORES = scores_of(*(score(own, *options(1.0 + index)) for index, own in enumerate(SITES)))
REQUEST = PlanRequest(target="onnxruntime", weight_bits=4, preset="plain", weight_scales="mse")


def fixed(method: Fixed):
    facts = facts_of(*SITES)
    start = plan(facts, SCORES, weight_bits=4, preset="plain", weight_scales="mse")
    return with_fixed(start, SCORES, REQUEST, facts, method)


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize(("name", "weight"), [("full", FULL), ("mse", MSE), ("gptq", GPTQ)])
def test_only_what_a_row_is_named_for_differs(name: str, weight: WeightPlan, smoothed) -> None:
    made = fixed(Fixed(weight=replace(weight, codes=None), smoothed=smoothed))
    wanted = treatment("shifted", weight=weight, smooth=smoothed)
    assert [entry.treatment for entry in made.sites] == [wanted] * 3
    noise = NOISE[name] * (1.0 + 2.0 + 3.0) / (2 if smoothed else 1)
    assert expected_db(made, SCORES, REQUEST) == pytest.approx(-10 * np.log10(noise), abs=0.01)


def test_the_weighed_baseline_is_the_preset() -> None:
    start = plan(facts_of(*SITES), SCORES, weight_bits=4, preset="plain", weight_scales="mse")
    baseline = METHODS[f"{NEAREST}, weighed MSE ranges"][0]
    assert isinstance(baseline, Fixed)
    assert fixed(baseline) == start


def test_the_other_one_forgets_the_codes_and_nothing_else() -> None:
    start = fixed(Fixed(weight=replace(MSE, codes=None)))
    anew = rounded_anew(start)
    for before, after in zip(start.sites, anew.sites, strict=True):
        assert after.treatment.weight == replace(MSE, codes=None)
        assert replace(after.treatment, weight=MSE) == before.treatment


def test_sites_in_float_stay_there() -> None:
    facts = facts_of(*SITES[:2], site("out", "final"))
    scores = scores_of(*(score(own, *options()) for own in facts.sites))
    start = plan(facts, scores, weight_bits=4, preset="plain", weight_scales="mse")
    made = with_fixed(start, scores, REQUEST, facts, Fixed(weight=replace(GPTQ, codes=None)))
    assert [entry.treatment.is_float for entry in made.sites] == [False, False, True]


def test_gains_and_sizes_are_over_the_best_nearest_row_of_the_same_model_and_format() -> None:
    def row(model: str, method: str, decibels: float, size: int) -> dict[str, object]:
        return {
            "model": model, "format": "W4A8", "method": method, "latent_sqnr_db": decibels,
            "latent_sqnr_db_stderr": 0.5, "sqnr_db_mean": 33.0, "expected_sqnr_db_mean": 32.0,
            "size_bytes": size, "size_bytes_weights": 2 * size + 50,
        }  # fmt: skip

    rows = [
        row("a", "+ GPTQ", 30.5, 101), row("a", "nearest, a", 26.0, 100),
        row("a", "nearest, b", 25.0, 99), row("b", "nearest, a", 40.0, 7),
    ]  # fmt: skip
    first, second, worse, third = table(rows).splitlines()[2:]
    assert "-1.0 dB" in worse
    assert "+4.5 dB" in first
    assert "| 1.008x, 1.010x |" in first
    assert "+0.0 dB" in second
    assert "+0.0 dB" in third
