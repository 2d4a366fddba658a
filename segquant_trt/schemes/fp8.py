"""float8 E4M3: three mantissa bits, so the step follows the value; saturating at 448."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from segquant_trt.records import Fp8
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.ranges import (
    ValueHistogram,
    best_shrink,
    float32_scale,
    symmetric_bound,
)

FLOAT8 = ml_dtypes.float8_e4m3fn
LARGEST = 448.0
_POINTS_PER_BIN = 4


def fit(seen: ValueHistogram, method: RangeMethod) -> Fp8:
    """The scheme that covers `seen`: the bound by `method` is 448.

    Raises:
        SegQuantError: the range is not finite.
    """
    bound = symmetric_bound(seen, "amax" if method == "mse" else method)
    if method == "mse" and bound > 0.0:
        largest = bound / LARGEST
        bound *= best_shrink(lambda r: np.array([_error(seen, largest * f) for f in r]))
    return Fp8(scale=float32_scale(bound / LARGEST))


def quantize(x: npt.NDArray[np.generic], scale: float) -> npt.NDArray[np.generic]:
    """`x / scale` as float8_e4m3fn, ties to even; beyond 448 it saturates, NaN stays."""
    with np.errstate(over="ignore"):
        ratio = np.asarray(x, dtype=np.float32) / np.float32(scale)
    codes: npt.NDArray[np.generic] = np.clip(ratio, -LARGEST, LARGEST).astype(FLOAT8)
    return codes


def fake_quantize(x: npt.NDArray[np.generic], scheme: Fp8) -> npt.NDArray[np.float32]:
    """The values that `x` has after quantisation, float32."""
    decoded: npt.NDArray[np.float32] = quantize(x, scheme.scale).astype(np.float32)
    decoded *= np.float32(scheme.scale)
    return decoded


def _error(seen: ValueHistogram, scale: float) -> float:
    """Squared error of the histogram, each bin sampled at a few points."""
    occupied = np.flatnonzero(seen.counts)
    edges = seen.edges()
    share = (np.arange(_POINTS_PER_BIN) + 0.5) / _POINTS_PER_BIN
    left, right = edges[occupied, None], edges[occupied + 1, None]
    points = left + (right - left) * share
    found = fake_quantize(points, Fp8(scale=scale))
    return float(np.sum(seen.counts[occupied] * np.mean((points - found) ** 2, axis=1)))
