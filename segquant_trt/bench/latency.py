"""Interleaved latency: on a machine whose speed drifts only paired runs can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segquant_trt.records import LatencyFigure

Call = Callable[[], object]
_WARM_UP_RUNS = 3
_CONFIDENCE = 0.95
_BOOTSTRAP_ELEMENTS = 10_000_000  # drawn at a time: 80 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLatency:
    """Two latencies from alternating runs, and the ratio first / second pair by pair.

    `low` and `high` bound the ratio's median with 95 % confidence (bootstrap over pairs).
    """

    first: LatencyFigure
    second: LatencyFigure
    ratio: float
    low: float
    high: float


def paired_latency(
    first: Call,
    second: Call,
    *,
    budget_s: float,
    at_least: int = 20,
    at_most: int = 500,
    on_run: Callable[[int, int], None] | None = None,
) -> PairedLatency:
    """Alternate the two calls within `budget_s` seconds, but at least `at_least` times."""
    for _ in range(_WARM_UP_RUNS):
        pair_s = _seconds(first) + _seconds(second)
    runs = int(np.clip(budget_s / pair_s, at_least, at_most))
    first_s, second_s = np.empty(runs), np.empty(runs)
    for index in range(runs):
        if index % 2:
            second_s[index], first_s[index] = _seconds(second), _seconds(first)
        else:
            first_s[index], second_s[index] = _seconds(first), _seconds(second)
        if on_run is not None:
            on_run(index + 1, runs)
    ratios = first_s / second_s
    low, high = median_interval(ratios)
    return PairedLatency(
        first=_figure(first_s),
        second=_figure(second_s),
        ratio=float(np.median(ratios)),
        low=low,
        high=high,
    )


def median_interval(
    values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[float, float]:
    """95 % interval of the median of `values` by percentile bootstrap; seeded."""
    from scipy.stats import bootstrap

    if np.ptp(values) == 0.0:
        return float(values[0]), float(values[0])
    result = bootstrap(
        (np.asarray(values),),
        np.median,
        confidence_level=_CONFIDENCE,
        method="percentile",
        batch=max(1, _BOOTSTRAP_ELEMENTS // len(values)),
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _figure(seconds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> LatencyFigure:
    median, p90, p99 = np.percentile(seconds * 1e3, [50, 90, 99])
    return LatencyFigure(
        median_ms=float(median), p90_ms=float(p90), p99_ms=float(p99), runs=len(seconds)
    )
