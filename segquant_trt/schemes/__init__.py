"""Activation schemes and weight codes: fit, NumPy reference, and encoding in a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segquant_trt.records import ActivationScheme
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes import (
    dual_full,
    dual_scale,
    fp8,
    keep_float,
    shifted,
    sign_magnitude,
    sparse_dual,
    symmetric,
)
from segquant_trt.schemes.coding import encoding, fake_quantize, planes
from segquant_trt.schemes.encoding import Encoding, output_encoding
from segquant_trt.schemes.factors import row_factor
from segquant_trt.schemes.packing import pack_int4, unpack_int4
from segquant_trt.schemes.ranges import ValueHistogram
from segquant_trt.schemes.rounding import optimise_weight
from segquant_trt.schemes.site import SiteWeight, coded_weight, segment_sqnr_db, site_output
from segquant_trt.schemes.smoothing import divisor_for, search_divisor
from segquant_trt.schemes.weights import QuantizedWeight, quantize_weight

__all__ = [
    "SCHEMES",
    "Encoding",
    "QuantizedWeight",
    "Scheme",
    "SiteWeight",
    "ValueHistogram",
    "coded_weight",
    "divisor_for",
    "encoding",
    "fake_quantize",
    "optimise_weight",
    "output_encoding",
    "pack_int4",
    "planes",
    "quantize_weight",
    "row_factor",
    "search_divisor",
    "segment_sqnr_db",
    "site_output",
    "unpack_int4",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A row of `SCHEMES`: the record's `kind`, and how it is fitted to what was seen."""

    kind: str
    fit: Callable[[ValueHistogram, RangeMethod], ActivationScheme]


SCHEMES: tuple[Scheme, ...] = (
    Scheme(kind="symmetric", fit=symmetric.fit),
    Scheme(kind="shifted", fit=shifted.fit),
    Scheme(kind="dual_scale", fit=dual_scale.fit),
    Scheme(kind="dual_full", fit=dual_full.fit),
    Scheme(kind="sign_magnitude", fit=sign_magnitude.fit),
    Scheme(kind="sparse_dual", fit=sparse_dual.fit),
    Scheme(kind="fp8", fit=fp8.fit),
    Scheme(kind="keep_float", fit=keep_float.fit),
)
