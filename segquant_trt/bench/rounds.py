"""Rounds in which every subject has one turn, in an order drawn anew each time.

Clocks of processors drift by tens of percent within a minute; what is compared must be close in
time, and no subject may always follow the same other one (whose data then fills the caches).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.bench.latency import median_interval
from segquant_trt.bench.timed import Timed
from segquant_trt.errors import SegQuantError
from segquant_trt.records import LatencyFigure
from segquant_trt.records.comparison import Clock, PairedRatio

Milliseconds = npt.NDArray[np.float64]
_MOST_ROUNDS = 5000
_MOST_ITERATIONS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """One subject's calls: when each began since the first round, and what it took, float64[n]."""

    clock: Clock
    start_ms: Milliseconds
    latency_ms: Milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured.

    `iterations` rounds at least, more while `duration_s` seconds are not over; before them every
    subject is called for `warm_up_ms` milliseconds, twice at least.
    """

    iterations: int = 20
    duration_s: float = 6.0
    warm_up_ms: float = 200.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.iterations <= _MOST_ITERATIONS:
            raise SegQuantError(
                f"iterations is {self.iterations}; allowed: 1 to {_MOST_ITERATIONS}",
                hint="leave --iterations out for 20 rounds at least",
            )
        for name, value in (("duration", self.duration_s), ("warmUp", self.warm_up_ms)):
            if not 0.0 <= value < math.inf:
                raise SegQuantError(
                    f"{name} is {value:g}; allowed: a number from 0",
                    hint=f"leave --{name} out for its default",
                )


def interleaved_rounds(
    subjects: Sequence[Timed],
    effort: Effort,
    *,
    on_run: Callable[[int, int], None] | None = None,
) -> dict[str, Timings]:
    """Timings by subject, all of the same number of rounds and by the same clock.

    Wall clock counts unless every subject is timed by its device's events.

    Raises:
        SegQuantError: a subject's own clock gives no time, or starts to give one half-way.
    """
    once_s = sum(_warmed_s(subject, effort.warm_up_ms) for subject in subjects)
    rounds = int(np.clip(effort.duration_s / once_s, effort.iterations, _MOST_ROUNDS))
    rounds = max(rounds, effort.iterations)
    starts = {subject.name: np.empty(rounds) for subject in subjects}
    walls = {subject.name: np.empty(rounds) for subject in subjects}
    devices: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    order = np.random.default_rng(effort.seed)
    begun = time.perf_counter()
    for index in range(rounds):
        for chosen in order.permutation(len(subjects)):
            subject = subjects[int(chosen)]
            start = time.perf_counter()
            device_ms = subject.run()
            walls[subject.name][index] = (time.perf_counter() - start) * 1e3
            starts[subject.name][index] = (start - begun) * 1e3
            if device_ms is not None:
                devices[subject.name].append(_checked(device_ms, subject.name))
        if on_run is not None:
            on_run(index + 1, rounds)
    own_clock = all(devices.values())
    return {
        name: _timings(name, starts[name], wall_ms, devices[name] if own_clock else [])
        for name, wall_ms in walls.items()
    }


def _warmed_s(subject: Timed, warm_up_ms: float) -> float:
    """Call the subject until the warm-up is over; the seconds of the last call."""
    begun, calls = time.perf_counter(), 0
    while True:
        start = time.perf_counter()
        subject.run()
        end = time.perf_counter()
        calls += 1
        if calls >= 2 and (end - begun) * 1e3 >= warm_up_ms:
            return max(end - start, 1e-7)


def _checked(device_ms: float, name: str) -> float:
    if not 0.0 < device_ms < math.inf:
        raise SegQuantError(
            f"the device's clock says that a call of {name} took {device_ms} ms",
            hint="the GPU or its driver is at fault; 'segquant-trt doctor' shows both",
        )
    return device_ms


def _timings(name: str, start_ms: Milliseconds, wall: Milliseconds, device: list[float]) -> Timings:
    if not device:
        return Timings(clock="wall", start_ms=start_ms, latency_ms=wall)
    if len(device) != len(wall):
        raise SegQuantError(
            f"{name} was timed by the device in {len(device)} of {len(wall)} calls",
            hint="this is a fault of its runtime; report it",
        )
    return Timings(clock="device", start_ms=start_ms, latency_ms=np.array(device))


def latency_figure(timings: Timings) -> LatencyFigure:
    """Median and tails."""
    median, p90, p99 = np.percentile(timings.latency_ms, [50, 90, 99])
    return LatencyFigure(
        median_ms=float(median),
        p90_ms=float(p90),
        p99_ms=float(p99),
        runs=len(timings.latency_ms),
    )


def paired_ratio(reference: Timings, other: Timings) -> PairedRatio:
    """`reference / other` round by round: how many times faster the other is."""
    ratios = reference.latency_ms / other.latency_ms
    low, high = median_interval(ratios)
    return PairedRatio(median=float(np.median(ratios)), low=low, high=high)
