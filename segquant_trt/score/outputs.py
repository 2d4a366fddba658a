"""What requantising a convolution's output costs: with one scale, or one per output channel."""

from __future__ import annotations

import numpy as np

from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes import output_encoding, shifted
from segquant_trt.schemes.seen import over_all_steps
from segquant_trt.score.group import Double, Float, Member


def output_range(member: Member, method: RangeMethod) -> tuple[float, float]:
    """The interval that one scale shall cover."""
    fitted = shifted.fit(over_all_steps(member.output), method)
    lowest = fitted.scale * (fitted.zero_shift - 128)
    return float(lowest), float(lowest + 255 * fitted.scale)


def channel_ranges(member: Member) -> Float:
    """float32[2, N]: lowest and highest value of every output channel, zero included."""
    low = np.minimum(member.output.minimum.min(axis=0), 0.0)
    high = np.maximum(member.output.maximum.max(axis=0), 0.0)
    return np.stack([low, high]).astype(np.float32)


def rounding_noise(
    member: Member, whole: tuple[float, float], channels: Float
) -> tuple[Double, Double]:
    """Noise at the denoiser's output per bin: one scale, and one per channel. Zero for linears."""
    if member.site.op != "Conv":
        none = np.zeros(len(member.rows))
        return none, none
    y = member.product(member.rows, member.weight)
    if member.bias is not None:
        y = y + member.bias
    single = output_encoding(*whole)
    rounded = single.dequantize(single.quantize(y))
    scale = np.maximum((channels[1] - channels[0]) / np.float32(255.0), np.finfo(np.float32).tiny)
    zero = np.rint(-channels[0] / scale)
    own = (np.clip(np.rint(y / scale) + zero, 0, 255) - zero) * scale
    return member.white_noise(rounded - y), member.white_noise(own.astype(np.float32) - y)
