"""Each polarity on all 256 codes: half the step of DualScale at the same two products.

The positive plane has zero point 0 and the negative one 255, so that saturation removes the other
polarity. On targets without zero points each plane is shifted by 128 steps and corrected.
"""

from __future__ import annotations

from segquant_trt.records import DualFull
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.encoding import Encoding
from segquant_trt.schemes.ranges import ValueHistogram, polarity_scales


def fit(seen: ValueHistogram, method: RangeMethod) -> DualFull:
    """The scheme that covers each polarity of `seen`: its bound by `method` is the 255th code.

    Raises:
        SegQuantError: the range is not finite.
    """
    positive, negative = polarity_scales(seen, method, codes=255)
    return DualFull(positive_scale=positive, negative_scale=negative)


def encodings(scheme: DualFull) -> tuple[Encoding, Encoding]:
    """The two planes of uint8 codes; neither needs clipping before."""
    return (
        Encoding(scale=scheme.positive_scale, zero_point=0, polarity="positive"),
        Encoding(scale=scheme.negative_scale, zero_point=255, polarity="negative"),
    )
