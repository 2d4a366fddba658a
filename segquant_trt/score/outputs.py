"""What requantising a convolution's output costs: with one scale, or one per output channel.

Under a row factor r the codes are those of `(y - b) / r`: r and the bias come after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import assert_never

from segquant_trt.records import PerStep, PerToken, RowFactor, Static
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes import ValueHistogram, output_encoding, row_factor, shifted
from segquant_trt.schemes.seen import over_all_steps
from segquant_trt.score.group import Double, Float, Member

# Calibration has the extremes of y, but of y over a token's own factor a sample of rows alone.
_UNSEEN = np.float32(1.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRanges:
    """`whole`: what one scale shall cover. `channels`: float32[2, N], lowest and highest value of
    every output channel, zero included."""

    whole: tuple[float, float]
    channels: Float


def output_ranges(
    member: Member, method: RangeMethod, factors: Float | None = None
) -> OutputRanges:
    """Ranges of y, or of `(y - b) / r`.

    Args:
        member: a site with its calibration.
        method: how the range of one scale is found.
        factors: r as float32[B, 1, 1], or of every row as float32[B, R, 1].
    """
    if factors is None:
        low, high = member.output.minimum, member.output.maximum
        seen = over_all_steps(member.output)
    elif factors.shape[1] == 1:
        bias = np.float32(0.0) if member.bias is None else member.bias
        low, high = (
            np.asarray((ends - bias) / factors[:, 0], dtype=np.float32)
            for ends in (member.output.minimum, member.output.maximum)
        )
        values = (member.output.rows - bias) / factors
        seen = ValueHistogram.of(values, low=float(low.min()), high=float(high.max()))
    else:
        values = _UNSEEN * member.product(member.rows, member.weight) / factors
        low, high = values.min(axis=1), values.max(axis=1)
        seen = ValueHistogram.of(values)
    return OutputRanges(
        whole=_covered(seen, method),
        channels=np.stack(
            [np.minimum(low.min(axis=0), 0.0), np.maximum(high.max(axis=0), 0.0)]
        ).astype(np.float32),
    )


def rounding_noise(
    member: Member, ranges: OutputRanges, factors: Float | None = None
) -> tuple[Double, Double]:
    """Noise at the denoiser's output per bin: one scale, and one per channel. Zero for linears."""
    if member.site.op != "Conv":
        none = np.zeros(len(member.rows))
        return none, none
    y = member.product(member.rows, member.weight)
    if factors is not None:
        y = y / factors
    elif member.bias is not None:
        y = y + member.bias
    single = output_encoding(*ranges.whole)
    rounded = single.dequantize(single.quantize(y))
    low, high = ranges.channels
    scale = np.maximum((high - low) / np.float32(255.0), np.finfo(np.float32).tiny)
    zero = np.rint(-low / scale)
    own = (np.clip(np.rint(y / scale) + zero, 0, 255) - zero) * scale
    back = np.float32(1.0) if factors is None else factors
    return (
        member.white_noise((rounded - y) * back),
        member.white_noise(((own - y) * back).astype(np.float32)),
    )


def output_factors(member: Member, factor: RowFactor, divisor: Float | None) -> Float | None:
    """r of the member's rows as `output_ranges` wants it; None where there is none.

    Nor is there where the bias is computed at run time: y was seen, `y - b` was not.
    """
    if member.site.computed_bias:
        return None
    match factor:
        case Static():
            return None
        case PerStep():
            return np.asarray(factor.factors, dtype=np.float32)[:, None, None]
        case PerToken():
            rows = member.rows if divisor is None else member.rows / divisor
            found = row_factor(rows.reshape(-1, rows.shape[-1]), factor)
            return found.reshape(*rows.shape[:2], 1)
        case _:
            assert_never(factor)


def _covered(seen: ValueHistogram, method: RangeMethod) -> tuple[float, float]:
    fitted = shifted.fit(seen, method)
    lowest = fitted.scale * (fitted.zero_shift - 128)
    return float(lowest), float(lowest + 255 * fitted.scale)
