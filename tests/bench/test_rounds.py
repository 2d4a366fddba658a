"""Every subject once per round, in an order that is drawn anew, by one clock for all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from segquant_trt.bench import rounds
from segquant_trt.bench.rounds import (
    Effort,
    Timings,
    interleaved_rounds,
    latency_figure,
    paired_ratio,
)
from segquant_trt.errors import SegQuantError
from tests.bench.subjects import Sleeper

QUICK = Effort(iterations=30, duration_s=0.0, warm_up_ms=0.0)


def test_a_round_has_one_turn_for_each_in_orders_that_differ() -> None:
    log: list[str] = []
    subjects = [Sleeper(name=name, log=log) for name in "abc"]
    interleaved_rounds(subjects, QUICK)
    warmed, turns = log[:6], log[6:]
    assert warmed == ["a", "a", "b", "b", "c", "c"]
    orders = [tuple(turns[at : at + 3]) for at in range(0, len(turns), 3)]
    assert len(orders) == 30
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(set(orders)) == 6  # all orders of three


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[str]:
        log: list[str] = []
        effort = Effort(iterations=12, duration_s=0.0, warm_up_ms=0.0, seed=seed)
        interleaved_rounds([Sleeper(name=name, log=log) for name in "abc"], effort)
        return log

    assert order(3) == order(3)
    assert order(3) != order(4)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes when a subject runs and at no other time."""
    made = Clock()
    monkeypatch.setattr(rounds, "time", made)
    return made


@dataclass
class Clock:
    now_s: float = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def subject(self, name: str, seconds: float) -> Sleeper:
        made = Sleeper(name=name)
        made.on_run = lambda: setattr(self, "now_s", self.now_s + seconds)
        return made


def test_the_warm_up_lasts_as_long_as_it_says(clock: Clock) -> None:
    subject = clock.subject("a", 0.004)
    interleaved_rounds([subject], Effort(iterations=1, duration_s=0.0, warm_up_ms=38.0))
    assert len(subject.log) == 10 + 1


def test_the_duration_makes_more_rounds_than_iterations_ask_for(clock: Clock) -> None:
    subjects = [clock.subject("a", 0.003), clock.subject("b", 0.001)]
    found = interleaved_rounds(subjects, Effort(iterations=2, duration_s=0.2, warm_up_ms=0.0))
    assert [len(found[name].latency_ms) for name in "ab"] == [50, 50]
    assert latency_figure(found["a"]).median_ms == pytest.approx(3.0)
    ratio = paired_ratio(found["a"], found["b"])
    assert ratio.low <= ratio.median == pytest.approx(3.0)


def test_starts_follow_one_another_and_contain_the_calls() -> None:
    subjects = [Sleeper(name=name, seconds=0.001) for name in "ab"]
    found = interleaved_rounds(subjects, QUICK)
    starts = np.concatenate([found[name].start_ms for name in "ab"])
    ends = np.concatenate([found[name].start_ms + found[name].latency_ms for name in "ab"])
    order = np.argsort(starts)
    assert starts.min() >= 0.0
    assert (ends[order][:-1] <= starts[order][1:] + 1e-6).all()


def test_a_device_s_own_clock_counts_where_all_have_one() -> None:
    found = interleaved_rounds(
        [Sleeper(name="a", device_ms=5.0), Sleeper(name="b", device_ms=2.5)], QUICK
    )
    assert found["a"].clock == found["b"].clock == "device"
    assert paired_ratio(found["a"], found["b"]).median == 2.0


def test_unequal_clocks_are_not_compared() -> None:
    found = interleaved_rounds(
        [Sleeper(name="a", device_ms=5000.0), Sleeper(name="b", seconds=0.001)], QUICK
    )
    assert found["a"].clock == found["b"].clock == "wall"
    assert latency_figure(found["a"]).median_ms < 100.0


@pytest.mark.parametrize("impossible", [0.0, -1.0, math.nan, math.inf])
def test_a_device_s_impossible_time_is_an_error(impossible: float) -> None:
    with pytest.raises(SegQuantError, match="the device's clock says that a call of a took"):
        interleaved_rounds([Sleeper(name="a", device_ms=impossible)], QUICK)


def test_quantiles_are_those_of_the_calls() -> None:
    calls = np.random.default_rng(0).permutation(np.arange(1.0, 102.0))
    figure = latency_figure(Timings(clock="wall", start_ms=calls, latency_ms=calls))
    assert (figure.median_ms, figure.p90_ms, figure.p99_ms) == (51.0, 91.0, 100.0)
    assert figure.runs == 101


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"iterations": -3}, "iterations is -3"),
        ({"iterations": 10**9}, "allowed: 1 to 1000000"),
        ({"duration_s": -1.0}, "duration is -1"),
        ({"duration_s": math.nan}, "duration is nan"),
        ({"duration_s": math.inf}, "duration is inf"),
        ({"warm_up_ms": math.nan}, "warmUp is nan"),
    ],
)
def test_impossible_efforts_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(SegQuantError, match=message):
        Effort(**wrong)  # type: ignore[arg-type]
