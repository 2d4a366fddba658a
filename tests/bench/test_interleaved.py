"""Ratios come from the runs of one round."""

from __future__ import annotations

import time

import numpy as np
import pytest

from segquant_trt.bench.costs.interleaved import interleaved, speedup


def test_a_call_that_sleeps_longer_is_slower_by_as_much() -> None:
    calls = {"long": lambda: time.sleep(0.006), "short": lambda: time.sleep(0.002)}
    seconds = interleaved(calls, budget_s=0.1, at_least=5)
    assert len(seconds["long"]) == len(seconds["short"]) >= 5
    assert speedup(seconds["long"], seconds["short"]).median == pytest.approx(3.0, rel=0.3)


def test_drift_that_all_share_cancels() -> None:
    drift = np.linspace(1.0, 3.0, 30)
    found = speedup(2.0 * drift, drift)
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_the_interval_holds_the_median_of_noisy_ratios() -> None:
    random = np.random.default_rng(0)
    found = speedup(1.5 * random.lognormal(0.0, 0.1, 200), random.lognormal(0.0, 0.1, 200))
    assert found.low < 1.5 < found.high
    assert found.high - found.low < 0.1
