"""Pairing, and the interval of a median."""

from __future__ import annotations

import time

import numpy as np
import pytest

from segquant_trt.bench.latency import median_interval, paired_latency


def test_pairs_alternate_and_the_ratio_is_theirs() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.004)

    def fast() -> None:
        order.append("fast")
        time.sleep(0.002)

    paired = paired_latency(slow, fast, budget_s=0.0, at_least=20, at_most=20)
    counted = order[-40:]
    assert [set(counted[i : i + 2]) for i in range(0, 40, 2)] == [{"slow", "fast"}] * 20
    assert counted[:4] == ["slow", "fast", "fast", "slow"]
    assert paired.first.runs == paired.second.runs == 20
    assert 1.2 < paired.ratio < 3.0
    assert paired.low <= paired.ratio <= paired.high
    assert paired.first.median_ms <= paired.first.p90_ms <= paired.first.p99_ms


def test_the_budget_decides_the_number_of_runs() -> None:
    paired = paired_latency(
        lambda: time.sleep(0.001), lambda: time.sleep(0.001), budget_s=1.0, at_least=5, at_most=30
    )
    assert paired.first.runs == 30


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        low, high = median_interval(rng.normal(2.0, 0.5, size=60))
        hits += low <= 2.0 <= high
    assert hits >= 33  # 95 % of 40 is 38; fewer than 33 has probability under 0.002


def test_equal_values_have_no_width() -> None:
    assert median_interval(np.full(9, 1.25)) == pytest.approx((1.25, 1.25))
