"""SegQuant's DualScale: positive and negative values on their own symmetric int8 scales.

`y = s+ s_w (q+ W) + s- s_w (q- W)` with `s+- = max |x+-| / 127` (SegQuant, "dual-scale
quantization"): two products with one weight. `stacked_rows` is the same with one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segquant_trt.records import DualScale
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.encoding import Encoding
from segquant_trt.schemes.ranges import ValueHistogram, polarity_scales


def fit(seen: ValueHistogram, method: RangeMethod) -> DualScale:
    """The scheme that covers each polarity of `seen`: its bound by `method` is code +-127.

    Raises:
        SegQuantError: the range is not finite.
    """
    positive, negative = polarity_scales(seen, method, codes=127)
    return DualScale(positive_scale=positive, negative_scale=negative)


def encodings(scheme: DualScale) -> tuple[Encoding, Encoding]:
    """Two planes of uint8 codes around 128; the graph clips each polarity before coding it."""
    return (
        Encoding(scale=scheme.positive_scale, zero_point=128, polarity="positive"),
        Encoding(scale=scheme.negative_scale, zero_point=128, polarity="negative"),
    )


def stacked_rows(x: npt.NDArray[np.float32], scheme: DualScale) -> npt.NDArray[np.float32]:
    """`[max(x, 0); min(x, 0) s+ / s-]`, float32[2M, K]: one symmetric scale s+ codes both.

    The codes are those of the two planes, but for values within float32 rounding of a tie.
    """
    ratio = np.float32(scheme.positive_scale) / np.float32(scheme.negative_scale)
    zero = np.float32(0.0)
    with np.errstate(over="ignore"):
        return np.concatenate([np.maximum(x, zero), np.minimum(x, zero) * ratio])


def merged_rows(y: npt.NDArray[np.float32], scheme: DualScale) -> npt.NDArray[np.float32]:
    """`y+ + (s- / s+) y-`, float32[M, N], of the stacked rows' product [2M, N] without bias."""
    positive, negative = np.split(y, 2)
    ratio = np.float32(scheme.negative_scale) / np.float32(scheme.positive_scale)
    merged: npt.NDArray[np.float32] = positive + ratio * negative
    return merged
