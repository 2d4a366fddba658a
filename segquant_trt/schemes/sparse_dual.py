"""SignMagnitude with a finer scale for negative values: DualScale in one 2:4 sparse product.

Negative magnitudes count `scale / ratio` and meet weight codes `round(codes / ratio)`, so that one
accumulator serves both polarities: what the finer scale gains, rounding those codes again loses.
The ratio is therefore chosen by the error of the product.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segquant_trt.records import SparseDual
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.ranges import (
    ValueHistogram,
    best_shrink,
    float32_scale,
    one_polarity,
    squared_errors,
    symmetric_bound,
)
from segquant_trt.schemes.sign_magnitude import LARGEST, magnitudes
from segquant_trt.schemes.weights import QuantizedWeight

RATIOS = range(1, 9)
# Mean square of int8 codes whose largest is 3.5 standard deviations.
_CODE_POWER = (127.0 / 3.5) ** 2


def fit(seen: ValueHistogram, method: RangeMethod) -> SparseDual:
    """The scheme and ratio that are best for `seen` and a weight of normally distributed codes.

    Raises:
        SegQuantError: the range is not finite.
    """
    above, below = one_polarity(seen, "positive"), one_polarity(seen, "negative")
    power = float(np.sum(below.counts * below.centres() ** 2))
    schemes = [fit_ratio(seen, method, ratio) for ratio in RATIOS]
    errors = [
        _errors(above, below, np.array([scheme.scale]), scheme.ratio)[0]
        + power * _rounding(scheme.ratio)
        for scheme in schemes
    ]
    return schemes[int(np.argmin(errors))]


def fit_ratio(seen: ValueHistogram, method: RangeMethod, ratio: int) -> SparseDual:
    """The scheme of a given ratio that covers `seen`.

    Raises:
        SegQuantError: the range is not finite.
    """
    # The search by squared error shrinks both polarities at once, from the full range.
    wanted: RangeMethod = "amax" if method == "mse" else method
    above, below = one_polarity(seen, "positive"), one_polarity(seen, "negative")
    positive = symmetric_bound(above, wanted, codes=LARGEST)
    negative = symmetric_bound(below, wanted, codes=LARGEST)
    scale = max(positive, negative * ratio) / LARGEST
    if method == "mse" and scale > 0.0:
        widest = scale
        scale *= best_shrink(lambda r: _errors(above, below, widest * r, ratio))
    return SparseDual(scale=float32_scale(scale), ratio=ratio)


def fit_measured(
    seen: ValueHistogram,
    method: RangeMethod,
    *,
    x: npt.NDArray[np.float32],
    weight: QuantizedWeight,
    wanted: npt.NDArray[np.float32],
) -> SparseDual:
    """The scheme whose ratio leaves the least squared error of the site's output.

    Args:
        seen: the histogram that the scale is fitted to.
        method: how.
        x: float32[M, K], sample rows.
        weight: the site's codes, [N, K].
        wanted: float32[M, N], the product of `x` with the float weight.

    Raises:
        SegQuantError: the range is not finite.
    """
    schemes = [fit_ratio(seen, method, ratio) for ratio in RATIOS]
    errors = []
    for scheme in schemes:
        found = sum(part @ rows.T for part, rows in operands(x, scheme, weight))
        errors.append(float(np.sum(np.square(found - wanted, dtype=np.float64))))
    return schemes[int(np.argmin(errors))]


def negative_scale(scheme: SparseDual) -> float:
    """What one step of a negative value is, as float32."""
    return float(np.float32(scheme.scale) / np.float32(scheme.ratio))


def fake_quantize(x: npt.NDArray[np.generic], scheme: SparseDual) -> npt.NDArray[np.float32]:
    """The values that `x` has after quantisation, float32; not what the weight does to them."""
    values = np.asarray(x, dtype=np.float32)
    negative = negative_scale(scheme)
    above = magnitudes(values, scheme.scale).astype(np.float32) * np.float32(scheme.scale)
    below = magnitudes(values, negative).astype(np.float32) * np.float32(-negative)
    decoded: npt.NDArray[np.float32] = np.where(values < 0.0, below, above)
    return decoded


def operands(
    x: npt.NDArray[np.float32], scheme: SparseDual, weight: QuantizedWeight
) -> tuple[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], ...]:
    """Pairs (float32[M, K], float32[N, K]) whose products `a @ w.T` add up to the site's."""
    coded = fake_quantize(x, scheme)
    zero = np.float32(0.0)
    halves = replace(weight, codes=divided_codes(weight.codes, scheme.ratio))
    return (
        (np.maximum(coded, zero), weight.dequantize()),
        (np.minimum(coded, zero), halves.dequantize() * np.float32(scheme.ratio)),
    )


def divided_codes(codes: npt.NDArray[np.int8], ratio: int) -> npt.NDArray[np.int8]:
    """`round(codes / ratio)`, ties to even: what negative magnitudes are multiplied with."""
    divided: npt.NDArray[np.int8] = np.rint(codes / np.float32(ratio)).astype(np.int8)
    return divided


def _errors(
    above: ValueHistogram, below: ValueHistogram, scales: npt.NDArray[np.float64], ratio: int
) -> npt.NDArray[np.float64]:
    """Squared error of both polarities at each of `scales`, float64[A]."""
    reach, zero = scales * LARGEST, np.zeros_like(scales)
    positive = squared_errors(above, zero, reach, steps=LARGEST)
    return positive + squared_errors(below, -reach / ratio, zero, steps=LARGEST)


def _rounding(ratio: int) -> float:
    """Mean squared relative error of the codes that negative values meet.

    A rounded integer multiple of 1 / ratio: the error is uniform over `ratio` values.
    """
    remainders = np.arange(ratio) / ratio
    errors = remainders - np.rint(remainders)
    return float(np.mean(np.square(errors * ratio))) / _CODE_POWER
