"""Shifted codes: `q = round(x / scale) - z` with integer z, so that the range need not be centred.

After GELU and SiLU most values lie just below zero: symmetric codes waste half of their range
there. z is an integer, hence zero decodes to zero and the padding of convolutions stays exact.
"""

from __future__ import annotations

import numpy as np

from segquant_trt.records import Shifted
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.encoding import Encoding
from segquant_trt.schemes.ranges import (
    ValueHistogram,
    float32_scale,
    shifted_bounds,
)


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
