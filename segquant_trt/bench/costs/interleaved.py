"""Latencies of several variants from interleaved runs: only pairs of neighbours are compared.

The method of `segquant_trt.bench.latency`, for more than two calls: every round runs all of them,
in another order each time, and a ratio is the median over rounds of the ratios within a round.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.bench.latency import Call, median_interval

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times faster than another a variant is; `low` and `high` bound it with 95 %."""

    median: float
    low: float
    high: float


def interleaved(
    calls: Mapping[str, Call],
    *,
    budget_s: float,
    at_least: int = 9,
    at_most: int = 500,
    warm_up: int = 2,
) -> dict[str, Seconds]:
    """Seconds of every call and round, within `budget_s` seconds but at least `at_least` rounds."""
    order = np.random.default_rng(0)
    names = list(calls)
    for _ in range(warm_up):
        once = sum(_seconds(calls[name]) for name in names)
    rounds = int(np.clip(budget_s / once, at_least, at_most))
    found = {name: np.empty(rounds) for name in names}
    for index in range(rounds):
        for name in order.permutation(names):
            found[str(name)][index] = _seconds(calls[str(name)])
    return found


def speedup(slow: Seconds, fast: Seconds) -> Ratio:
    """`slow / fast`, round by round."""
    ratios = slow / fast
    low, high = median_interval(ratios)
    return Ratio(median=float(np.median(ratios)), low=low, high=high)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
