"""Any scheme's codes: its uint8 planes where it has some, and the values that it leaves of `x`."""

from __future__ import annotations

import math
from dataclasses import replace

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
from segquant_trt.schemes import (
    dual_full,
    dual_scale,
    fp8,
    shifted,
    sign_magnitude,
    sparse_dual,
    symmetric,
)
from segquant_trt.schemes.encoding import Encoding


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
            found: tuple[Encoding, ...] = (symmetric.encoding(scheme),)
        case Shifted():
            found = (shifted.encoding(scheme),)
        case DualScale():
            found = dual_scale.encodings(scheme)
        case DualFull():
            found = dual_full.encodings(scheme)
        case SignMagnitude() | SparseDual() | Fp8():
            raise SegQuantError(
                f"site '{site}': {scheme.kind} has no form in uint8 codes",
                hint="choose another scheme in the plan, or another target",
            )
        case _:
            assert_never(scheme)
    # A scale edited by hand may have more digits than the float32 that the graph holds.
    exact = tuple(replace(plane, scale=float(np.float32(plane.scale))) for plane in found)
    possible = [_is_scale(plane.scale) and 0 <= plane.zero_point <= 255 for plane in exact]
    _require(all(possible), scheme, site)
    return exact


def encoding(scheme: ActivationScheme, *, site: str) -> Encoding | None:
    """The single plane of `scheme`; None when the site stays float.

    Raises:
        SegQuantError: as `planes`, or the scheme has two planes.
    """
    found = planes(scheme, site=site)
    if len(found) > 1:
        raise SegQuantError(
            f"site '{site}': {scheme.kind} needs {len(found)} tensors of codes, one was asked for",
            hint="choose symmetric or shifted in the plan",
        )
    return found[0] if found else None


def fake_quantize(
    x: npt.NDArray[np.generic], scheme: ActivationScheme, *, site: str = "activation"
) -> npt.NDArray[np.float32]:
    """The values that `x` has after quantisation by `scheme`: the reference of every backend.

    Raises:
        SegQuantError: naming `site`, when a scale, shift or ratio is impossible.
    """
    match scheme:
        case KeepFloat():
            return np.asarray(x, dtype=np.float32)
        case Symmetric() | Shifted() | DualScale() | DualFull():
            decoded = [plane.dequantize(plane.quantize(x)) for plane in planes(scheme, site=site)]
            return decoded[0] if len(decoded) == 1 else decoded[0] + decoded[1]
        case SignMagnitude():
            _require(_is_scale(scheme.scale), scheme, site)
            return sign_magnitude.fake_quantize(x, scheme)
        case SparseDual():
            _require(_is_scale(scheme.scale) and scheme.ratio in sparse_dual.RATIOS, scheme, site)
            return sparse_dual.fake_quantize(x, scheme)
        case Fp8():
            _require(_is_scale(scheme.scale), scheme, site)
            return fp8.fake_quantize(x, scheme)
        case _:
            assert_never(scheme)


def _is_scale(scale: float) -> bool:
    exact = float(np.float32(scale))
    return math.isfinite(exact) and exact > 0.0


def _require(possible: bool, scheme: ActivationScheme, site: str) -> None:
    if not possible:
        raise SegQuantError(
            f"site '{site}': {scheme} is impossible; scales must be positive and finite, "
            "zero_shift between -127 and 128, a ratio between 1 and 8",
            hint="undo the edit of the plan, or run 'segquant-trt plan' again",
        )
