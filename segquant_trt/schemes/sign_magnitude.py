"""Nine bits: a magnitude of 256 levels, and the sign. The sign is free in one 2:4 sparse product.

Per k one of `max(x, 0)`, `max(-x, 0)` is zero, so interleaving them gives the pattern that sparse
tensor cores need; see `sparse` for the operands.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segquant_trt.records import SignMagnitude
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.ranges import ValueHistogram, float32_scale, symmetric_bound

LARGEST = 255


def fit(seen: ValueHistogram, method: RangeMethod) -> SignMagnitude:
    """The scheme that covers `seen`: the bound by `method` is magnitude 255.

    Raises:
        SegQuantError: the range is not finite.
    """
    bound = symmetric_bound(seen, method, codes=LARGEST)
    return SignMagnitude(scale=float32_scale(bound / LARGEST))


def magnitudes(x: npt.NDArray[np.generic], scale: float) -> npt.NDArray[np.uint8]:
    """`round(|x| / scale)` clipped to 255: float32 division, ties to even."""
    with np.errstate(over="ignore"):
        ratio = np.abs(np.asarray(x, dtype=np.float32)) / np.float32(scale)
    levels: npt.NDArray[np.uint8] = np.minimum(np.rint(ratio), LARGEST).astype(np.uint8)
    return levels


def fake_quantize(x: npt.NDArray[np.generic], scheme: SignMagnitude) -> npt.NDArray[np.float32]:
    """The values that `x` has after quantisation, float32."""
    values = np.asarray(x, dtype=np.float32)
    levels = magnitudes(values, scheme.scale).astype(np.float32)
    decoded: npt.NDArray[np.float32] = np.copysign(levels * np.float32(scheme.scale), values)
    return decoded
