"""Activation schemes and weight codes: fit, NumPy reference, and encoding in a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from segquant_trt.errors import SegQuantError
from segquant_trt.records import ActivationScheme, KeepFloat, Shifted, Symmetric
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


def encoding(scheme: ActivationScheme, *, site: str) -> Encoding | None:
    """How the codes of `scheme` are stored; None when the site stays float.

    Raises:
        SegQuantError: naming `site`, when the scale or the shift is not possible.
    """
    match scheme:
        case Symmetric():
            found = symmetric.encoding(scheme)
        case Shifted():
            found = shifted.encoding(scheme)
        case KeepFloat():
            return None
        case _:
            assert_never(scheme)
    # A scale edited by hand may have more digits than the float32 that the graph holds.
    found = replace(found, scale=float(np.float32(found.scale)))
    if not (math.isfinite(found.scale) and found.scale > 0.0 and 0 <= found.zero_point <= 255):
        raise SegQuantError(
            f"site '{site}': {scheme} is impossible; the scale must be positive and finite, "
            "zero_shift between -127 and 128",
            hint="undo the edit of the plan, or run 'segquant-trt plan' again",
        )
    return found


def fake_quantize(
    x: npt.NDArray[np.generic], scheme: ActivationScheme, *, site: str = "activation"
) -> npt.NDArray[np.float32]:
    """The values that `x` has after quantisation by `scheme`: the reference of every backend."""
    found = encoding(scheme, site=site)
    if found is None:
        return np.asarray(x, dtype=np.float32)
    return found.dequantize(found.quantize(x))
