"""Shifted codes: `q = round(x / scale) - z` with integer z, so that the range need not be centred.

After GELU and SiLU most values lie just below zero: symmetric codes waste half of their range
there. z is an integer, hence zero decodes to zero and the padding of convolutions stays exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segquant_trt.records import Shifted
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.encoding import Encoding
from segquant_trt.schemes.ranges import (
    ValueHistogram,
    float32_scale,
    shifted_bounds,
)
from segquant_trt.schemes.weights import QuantizedWeight


def fit(seen: ValueHistogram, method: RangeMethod) -> Shifted:
    """The scheme that covers `seen` with 255 steps from its low to its high bound.

    Raises:
        SegQuantError: the range is not finite.
    """
    low, high = shifted_bounds(seen, method)
    scale = float32_scale((high - low) / 255.0)
    return Shifted(scale=scale, zero_shift=int(np.clip(np.rint(low / scale) + 128, -127, 128)))


def encoding(scheme: Shifted) -> Encoding:
    """uint8 codes with zero point `128 - zero_shift`."""
    return Encoding(scale=scheme.scale, zero_point=128 - scheme.zero_shift)


def signed_codes(x: npt.NDArray[np.generic], scheme: Shifted) -> npt.NDArray[np.int8]:
    """`q`, int8: the codes of targets without zero points, where a Sub before Q does the shift."""
    return (encoding(scheme).quantize(x).astype(np.int16) - 128).astype(np.int8)


def correction(scheme: Shifted, weight: QuantizedWeight) -> npt.NDArray[np.float32]:
    """`c sum_k dequantised(W)[n, k]` with `c = scale zero_shift`, float32[N].

    Under a row factor `y = r (scale q W^T + correction) + b`: unlike the bias it is multiplied by
    r. The float weight's sum in its place would multiply the weight's error by the whole shift.
    """
    total = weight.dequantize().sum(axis=1, dtype=np.float64)
    found: npt.NDArray[np.float32] = (scheme.scale * scheme.zero_shift * total).astype(np.float32)
    return found


def padded_correction(
    scheme: Shifted, weight: QuantizedWeight, inside: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """The correction of a convolution that pads its codes with zeros, float32[M, N].

    Code zero stands for `scale zero_shift` rather than for zero, so only taps inside the image are
    corrected. A graph that pads before it subtracts needs `correction` alone.

    Args:
        scheme: of the activation.
        weight: [N, K].
        inside: bool[M, K], which columns of each patch lie in the image.
    """
    total = inside.astype(np.float64) @ weight.dequantize().astype(np.float64).T
    found: npt.NDArray[np.float32] = (scheme.scale * scheme.zero_shift * total).astype(np.float32)
    return found
