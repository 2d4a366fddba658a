"""Symmetric codes: `q = round(x / scale)`; one scale per tensor, zero is code zero."""

from __future__ import annotations

from segquant_trt.records import Symmetric
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes.encoding import Encoding
from segquant_trt.schemes.ranges import (
    ValueHistogram,
    float32_scale,
    symmetric_bound,
)


def fit(seen: ValueHistogram, method: RangeMethod) -> Symmetric:
    """The scheme that covers `seen`: the bound by `method` is code 127.

    Raises:
        SegQuantError: the range is not finite.
    """
    return Symmetric(scale=float32_scale(symmetric_bound(seen, method) / 127.0))


def encoding(scheme: Symmetric) -> Encoding:
    """uint8 codes around zero point 128."""
    return Encoding(scale=scheme.scale, zero_point=128)
