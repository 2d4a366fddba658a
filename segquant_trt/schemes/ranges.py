"""Choose the range that a scheme covers: amax, percentile, or least squared error.

The histogram searches work on bin centres: with 2048 bins over at most twice the largest value
there are four or more bins per int8 step, so that a centre stands for its bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records.options import RangeMethod

PERCENTILE = 99.99
_SHRINK = np.linspace(1.0, 0.2, 81)
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueHistogram:
    """What was seen of one tensor: its extremes, and counts in uniform bins.

    `counts`: int64[bins] over `[-radius, radius]`; `low` and `high` are the true extremes.
    """

    low: float
    high: float
    radius: float
    counts: npt.NDArray[np.int64]

    def centres(self) -> npt.NDArray[np.float64]:
        """Middle of every bin, float64[bins]."""
        bins = len(self.counts)
        width = 2.0 * self.radius / bins
        return np.arange(bins, dtype=np.float64) * width + (0.5 * width - self.radius)


def widened(histogram: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The same counts (int64[bins]) over twice the range."""
    bins = len(histogram)
    result = np.zeros_like(histogram)
    result[bins // 4 : 3 * bins // 4] = histogram.reshape(-1, 2).sum(axis=1)
    return result


def checked_extremes(seen: ValueHistogram) -> tuple[float, float]:
    """`(min(low, 0), max(high, 0))`: zero is always representable.

    Raises:
        SegQuantError: an extreme is not finite, or low exceeds high.
    """
    if not (np.isfinite(seen.low) and np.isfinite(seen.high)) or seen.low > seen.high:
        raise SegQuantError(
            f"activation range ({seen.low}, {seen.high}) is not a finite interval",
            hint="calibrate again; the float model produced NaN or infinity",
        )
    return min(seen.low, 0.0), max(seen.high, 0.0)


def symmetric_bound(seen: ValueHistogram, method: RangeMethod) -> float:
    """The largest magnitude that a symmetric scheme shall cover."""
    low, high = checked_extremes(seen)
    amax = max(-low, high)
    if method == "amax" or amax == 0.0:
        return amax
    if method == "percentile":
        magnitude = np.abs(seen.centres())
        order = np.argsort(magnitude, kind="stable")
        reached = np.cumsum(seen.counts[order])
        index = int(np.searchsorted(reached, reached[-1] * PERCENTILE / 100.0))
        half_bin = seen.radius / len(seen.counts)
        return min(amax, float(magnitude[order][index]) + half_bin)
    errors = [squared_error(seen, -amax * r, amax * r, steps=254) for r in _SHRINK]
    return amax * float(_SHRINK[int(np.argmin(errors))])


def shifted_bounds(seen: ValueHistogram, method: RangeMethod) -> tuple[float, float]:
    """The interval, including zero, that a shifted scheme shall cover."""
    low, high = checked_extremes(seen)
    if method == "amax" or low == high:
        return low, high
    if method == "percentile":
        tail = (1.0 - PERCENTILE / 100.0) / 2.0
        reached = np.cumsum(seen.counts) / seen.counts.sum()
        width = 2.0 * seen.radius / len(seen.counts)
        below = int(np.searchsorted(reached, tail, side="right")) * width - seen.radius
        above = (int(np.searchsorted(reached, 1.0 - tail)) + 1) * width - seen.radius
        return max(low, min(below, 0.0)), min(high, max(above, 0.0))
    best_low, best_high = low, high
    for _ in range(_ROUNDS):
        errors = [squared_error(seen, low * r, best_high, steps=255) for r in _SHRINK]
        best_low = low * float(_SHRINK[int(np.argmin(errors))])
        errors = [squared_error(seen, best_low, high * r, steps=255) for r in _SHRINK]
        best_high = high * float(_SHRINK[int(np.argmin(errors))])
    return best_low, best_high


def squared_error(seen: ValueHistogram, low: float, high: float, *, steps: int) -> float:
    """Sum over the histogram of (x - fq(x))^2 with `steps` uniform steps from low to high."""
    centres = seen.centres()
    scale = (high - low) / steps
    if scale <= 0.0:
        return float("inf")
    zero = np.rint(low / scale)
    codes = np.clip(np.rint(centres / scale), zero, zero + steps)
    return float(np.sum(seen.counts * (centres - codes * scale) ** 2))


def float32_scale(scale: float) -> float:
    """The scale as the float32 that graphs hold, exact in YAML; the smallest normal if it is less.

    Subnormal scales are flushed to zero by some runtimes.
    """
    return float(np.maximum(np.float32(scale), np.finfo(np.float32).tiny))
