"""Choose the range that a scheme covers: amax, percentile, or least squared error.

The searches take the values of a bin as spread evenly over it and integrate the rounding error
exactly, so that steps may be finer than bins: a polarity that is narrow beside the other, as after
SiLU, has many codes per bin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records.calibration import HISTOGRAM_BINS
from segquant_trt.records.options import RangeMethod

PERCENTILE = 99.99
# A few outliers among very many values are worth clipping to a small part of their range.
SHRINK = np.concatenate([np.linspace(1.0, 0.2, 81), np.geomspace(0.19, 1 / 64, 24)])
_STRIDE = 6
_ROUNDS = 3
_NARROW = 1e-3  # of a step: the difference of two cubes would be lost in rounding
_SMALLEST_EXPONENT = -24
# Beyond it the smaller polarity is lost in a float32 sum, and ratios of scales may overflow.
_WIDEST_RATIO = 2.0**24


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueHistogram:
    """What was seen of one tensor: its extremes, and counts in uniform bins.

    `counts`: int64[bins] over `[-radius, radius]`; `low` and `high` are the true extremes.
    """

    low: float
    high: float
    radius: float
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        values: npt.NDArray[np.floating],
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> ValueHistogram:
        """The histogram of an array: 2048 bins over a power of two, as calibration counts.

        Args:
            values: any shape, at least one element.
            low: the lowest of all data, where `values` is a sample of it.
            high: the highest of all data.

        Raises:
            SegQuantError: there is no value, or one is not finite.
        """
        flat = np.asarray(values, dtype=np.float32).ravel()
        ends = [float(end) for end in (low, high) if end is not None]
        if flat.size:
            ends += [float(flat.min()), float(flat.max())]
        if not flat.size or not np.isfinite(ends).all():
            raise SegQuantError(
                "activation values to fit a range to are missing, NaN or infinite",
                hint="calibrate again; the float model produced NaN, infinity or nothing at all",
            )
        exponent = _radius_exponent(max(max(ends), -min(ends)))
        position = np.floor(flat * np.float32(HISTOGRAM_BINS / 2 / 2.0**exponent))
        index = np.clip(position + HISTOGRAM_BINS // 2, 0, HISTOGRAM_BINS - 1).astype(np.int64)
        counts = np.bincount(index, minlength=HISTOGRAM_BINS)
        return cls(low=min(ends), high=max(ends), radius=2.0**exponent, counts=counts)

    def edges(self) -> npt.NDArray[np.float64]:
        """Borders of the bins, float64[bins + 1], within the extremes: no value lies beyond."""
        borders = np.linspace(-self.radius, self.radius, len(self.counts) + 1)
        return np.clip(borders, self.low, self.high)

    def centres(self) -> npt.NDArray[np.float64]:
        """Middle of every bin, float64[bins]."""
        bins = len(self.counts)
        width = 2.0 * self.radius / bins
        return np.arange(bins, dtype=np.float64) * width + (0.5 * width - self.radius)


def _radius_exponent(amax: float) -> int:
    """The least exponent whose power of two is not below `amax`, from -24 on."""
    mantissa, exponent = math.frexp(amax)
    if mantissa == 0.5:
        exponent -= 1
    return max(exponent, _SMALLEST_EXPONENT) if amax > 0.0 else _SMALLEST_EXPONENT


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


def symmetric_bound(seen: ValueHistogram, method: RangeMethod, *, codes: int = 127) -> float:
    """The largest magnitude to cover with `codes` codes on either side of zero.

    Raises:
        SegQuantError: the range is not finite.
    """
    low, high = checked_extremes(seen)
    amax = max(-low, high)
    if method == "amax" or amax == 0.0 or not seen.counts.any():
        return amax
    if method == "percentile":
        magnitude = np.abs(seen.centres())
        order = np.argsort(magnitude, kind="stable")
        reached = np.cumsum(seen.counts[order])
        index = int(np.searchsorted(reached, reached[-1] * PERCENTILE / 100.0))
        half_bin = seen.radius / len(seen.counts)
        return min(amax, float(magnitude[order][index]) + half_bin)
    return amax * best_shrink(lambda r: squared_errors(seen, -amax * r, amax * r, steps=2 * codes))


def polarity_scales(
    seen: ValueHistogram, method: RangeMethod, *, codes: int
) -> tuple[float, float]:
    """Scales (positive, negative) that cover each polarity with `codes` codes of its own.

    A polarity that was not seen takes the other's scale; neither is below 2**-24 of the other.

    Raises:
        SegQuantError: the range is not finite.
    """
    positive = symmetric_bound(one_polarity(seen, "positive"), method, codes=codes) / codes
    negative = symmetric_bound(one_polarity(seen, "negative"), method, codes=codes) / codes
    least = max(positive, negative) / _WIDEST_RATIO
    return (
        float32_scale(max(positive, least) if positive > 0.0 else negative),
        float32_scale(max(negative, least) if negative > 0.0 else positive),
    )


def one_polarity(seen: ValueHistogram, polarity: Literal["positive", "negative"]) -> ValueHistogram:
    """What was seen above zero, or below it."""
    low, high = checked_extremes(seen)
    middle = len(seen.counts) // 2
    counts = seen.counts.copy()
    if polarity == "positive":
        counts[:middle] = 0
        return replace(seen, low=max(seen.low, 0.0), high=high, counts=counts)
    counts[middle:] = 0
    return replace(seen, low=low, high=min(seen.high, 0.0), counts=counts)


def shifted_bounds(
    seen: ValueHistogram, method: RangeMethod, *, steps: int = 255
) -> tuple[float, float]:
    """The interval, including zero, that a shifted scheme shall cover in `steps` steps.

    Raises:
        SegQuantError: the range is not finite.
    """
    low, high = checked_extremes(seen)
    if method == "amax" or low == high or not seen.counts.any():
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
        before = best_low, best_high
        best_low = low * _best_low(seen, low, best_high, steps)
        best_high = high * _best_high(seen, best_low, high, steps)
        if (best_low, best_high) == before:
            break
    return best_low, best_high


def _best_low(seen: ValueHistogram, low: float, high: float, steps: int) -> float:
    return best_shrink(lambda r: squared_errors(seen, low * r, np.full_like(r, high), steps=steps))


def _best_high(seen: ValueHistogram, low: float, high: float, steps: int) -> float:
    return best_shrink(lambda r: squared_errors(seen, np.full_like(r, low), high * r, steps=steps))


def best_shrink(errors: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> float:
    """The factor in `SHRINK` of least error: every sixth first, then those around the best.

    Args:
        errors: of each of an array of factors.
    """
    coarse = np.arange(0, len(SHRINK), _STRIDE)
    centre = int(coarse[int(np.argmin(errors(SHRINK[coarse])))])
    near = np.arange(max(centre - _STRIDE + 1, 0), min(centre + _STRIDE, len(SHRINK)))
    return float(SHRINK[near[int(np.argmin(errors(SHRINK[near])))]])


def squared_error(seen: ValueHistogram, low: float, high: float, *, steps: int) -> float:
    """Sum over the histogram of (x - fq(x))^2 with `steps` uniform steps from low to high."""
    return float(squared_errors(seen, np.array([low]), np.array([high]), steps=steps)[0])


def squared_errors(
    seen: ValueHistogram,
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    *,
    steps: int,
) -> npt.NDArray[np.float64]:
    """The same for each of A intervals from `low` to `high`, float64[A]; infinite where empty.

    The integral of (x - s q(x))^2 from 0 to x is `n s^3 / 12 + (x - n s)^3 / 3` with n the code
    of x: n whole cells, and the part of the last one; beyond the last code that part goes on.
    """
    scale = (high - low) / steps
    occupied = np.flatnonzero(seen.counts)
    if not len(occupied):
        return np.where(scale > 0.0, 0.0, np.inf)
    step = np.where(scale > 0.0, scale, 1.0)[:, None]
    first = np.rint(low[:, None] / step)
    span = slice(int(occupied[0]), int(occupied[-1]) + 1)
    # In units of the step, which may be so small that its cube is zero.
    edges = seen.edges()[None, span.start : span.stop + 1] / step
    codes = np.clip(np.rint(edges), first, first + steps)
    width = np.diff(edges)
    integral = np.diff(codes / 12.0 + (edges - codes) ** 3 / 3.0)
    mean = integral / np.where(width < _NARROW, 1.0, width)
    if (width < _NARROW).any():
        point = 0.5 * (edges[:, :-1] + edges[:, 1:])
        at_point = (point - np.clip(np.rint(point), first, first + steps)) ** 2
        mean = np.where(width < _NARROW, at_point, mean)
    total = (mean @ seen.counts[span].astype(np.float64)) * step[:, 0] ** 2
    return np.where(scale > 0.0, total, np.inf)


def float32_scale(scale: float) -> float:
    """The scale as the float32 that graphs hold, exact in YAML; the smallest normal if it is less.

    Subnormal scales are flushed to zero by some runtimes. Where all was zero any scale will do: 1.
    """
    if scale == 0.0:
        return 1.0
    return float(np.maximum(np.float32(scale), np.finfo(np.float32).tiny))
