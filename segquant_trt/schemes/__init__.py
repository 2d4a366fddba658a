"""Activation schemes and weight codes: fit, NumPy reference, and encoding in a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    Fp8,
    KeepFloat,
    Shifted,
    SignMagnitude,
    SparseDual,
    Symmetric,
)
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes import keep_float, shifted, symmetric
from segquant_trt.schemes.encoding import Encoding, output_encoding
from segquant_trt.schemes.ranges import ValueHistogram
from segquant_trt.schemes.weights import QuantizedWeight, quantize_weight

__all__ = [
    "SCHEMES",
    "Encoding",
    "QuantizedWeight",
    "Scheme",
    "ValueHistogram",
    "encoding",
    "fake_quantize",
    "output_encoding",
    "planes",
    "quantize_weight",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A row of `SCHEMES`: the record's `kind`, and how it is fitted to what was seen."""

    kind: str
    fit: Callable[[ValueHistogram, RangeMethod], ActivationScheme]


SCHEMES: tuple[Scheme, ...] = (
    Scheme(kind="symmetric", fit=symmetric.fit),
    Scheme(kind="shifted", fit=shifted.fit),
    Scheme(kind="keep_float", fit=keep_float.fit),
)


def planes(scheme: ActivationScheme, *, site: str) -> tuple[Encoding, ...]:
    """The uint8 planes whose decoded values add up to the activation; none when it stays float.

    Raises:
        SegQuantError: naming `site`, when a scale or shift is impossible, or when the scheme has
            no form in uint8 planes (sign_magnitude, sparse_dual and fp8 need other hardware).
    """
    match scheme:
        case KeepFloat():
            return ()
        case Symmetric():
            found = (symmetric.encoding(scheme),)
        case Shifted():
            found = (shifted.encoding(scheme),)
        case DualScale() | DualFull() | SignMagnitude() | SparseDual() | Fp8():
            raise SegQuantError(
                f"site '{site}': {scheme.kind} has no form in uint8 codes",
                hint="choose another scheme in the plan, or another target",
            )
        case _:
            assert_never(scheme)
    # A scale edited by hand may have more digits than the float32 that the graph holds.
    exact = tuple(replace(plane, scale=float(np.float32(plane.scale))) for plane in found)
    for plane in exact:
        if not (math.isfinite(plane.scale) and plane.scale > 0.0 and 0 <= plane.zero_point <= 255):
            raise SegQuantError(
                f"site '{site}': {scheme} is impossible; the scale must be positive and finite, "
                "zero_shift between -127 and 128",
                hint="undo the edit of the plan, or run 'segquant-trt plan' again",
            )
    return exact


def encoding(scheme: ActivationScheme, *, site: str) -> Encoding | None:
    """The single plane of `scheme`; None when the site stays float.

    Raises:
        SegQuantError: as `planes`.
    """
    found = planes(scheme, site=site)
    return found[0] if found else None


def fake_quantize(
    x: npt.NDArray[np.generic], scheme: ActivationScheme, *, site: str = "activation"
) -> npt.NDArray[np.float32]:
    """The values that `x` has after quantisation by `scheme`: the reference of every backend."""
    found = planes(scheme, site=site)
    if not found:
        return np.asarray(x, dtype=np.float32)
    decoded = [plane.dequantize(plane.quantize(x)) for plane in found]
    return decoded[0] if len(decoded) == 1 else decoded[0] + decoded[1]
