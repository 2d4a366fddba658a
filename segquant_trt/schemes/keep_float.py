"""No codes: the site is left as it is. Always fits."""

from __future__ import annotations

from segquant_trt.records import KeepFloat
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.ranges import ValueHistogram


def fit(seen: ValueHistogram, method: RangeMethod) -> KeepFloat:
    """The scheme, whatever was seen."""
    return KeepFloat()
