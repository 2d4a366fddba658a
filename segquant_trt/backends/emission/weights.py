"""Compute what an emitted graph has stored: codes, scales and float tensors, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segquant_trt.backends.emission.arrays import Arrays
from segquant_trt.backends.emission.stored import FloatTensor, IntegerBias, WeightCodes
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights
from segquant_trt.records import LinearSite, Treatment
from segquant_trt.schemes import QuantizedWeight, coded_weight

Float = npt.NDArray[np.float32]

_CHUNK_ELEMENTS = 1 << 22
_BIAS_LIMIT = 2.0**30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWeight:
    """Codes as the graph has them: int8 (4-bit codes too) [K, N], or in a convolution's order.

    `scale`: float32[N], or float32[K / block, N].
    """

    codes: npt.NDArray[np.int8]
    scale: Float
    bits: int

    def decoded(self, axis: int, block: int | None) -> Float:
        """The float32 weight that the graph computes, in the order of the codes."""
        if block is not None:
            scale = np.repeat(self.scale, block, axis=0)[: len(self.codes)]
            return self.codes * scale
        shape = [1] * self.codes.ndim
        shape[axis] = -1
        return self.codes * self.scale.reshape(shape)


def site_codes(
    site: LinearSite, treatment: Treatment, source: Weights, arrays: Arrays
) -> tuple[QuantizedWeight, ...]:
    """The codes of every segment of a site's weight, output channels first.

    Raises:
        SegQuantError: the weight holds NaN or infinity, its file is too short, or an array of the
            plan is missing or has another shape.
    """
    values = source.read_float32(site.weight)
    check_finite(site.weight, values)
    by_channel = values
    if site.weight_layout == "KN":
        by_channel = values.reshape(site.in_features, -1).T
    rows = np.ascontiguousarray(by_channel.reshape(len(by_channel), -1))
    taps = int(np.prod(site.kernel)) if site.op == "Conv" else 1
    if site.groups > 1:
        # Every output channel sees the channels of its own group alone.
        (whole,) = treatment.segments
        own = replace(whole, channels=rows.shape[1] // taps)
        treatment = replace(treatment, segments=(own,))
    return coded_weight(rows, treatment, arrays, taps)


def stored_weight(
    weight: WeightCodes, found: Sequence[QuantizedWeight], source: Weights
) -> StoredWeight:
    """One of a site's `site_codes` in the order and with the scales that the graph wants."""
    segment = found[weight.segment]
    if weight.integer_bias is not None:
        segment = _raised(segment, _smallest_scale(weight.integer_bias, source))
    site, plan = weight.site, weight.treatment.weight
    assert plan is not None
    codes, scale = segment.codes, segment.scale
    if weight.gain is not None:
        scale = scale * (weight.gain if plan.block is None else weight.gain[:, None])
    if site.op == "Conv":
        codes = codes.reshape(len(codes), -1, *site.kernel)
    else:
        codes = np.ascontiguousarray(codes.T)
    stored = np.ascontiguousarray(scale if plan.block is None else scale.T, dtype=np.float32)
    return StoredWeight(codes=codes, scale=stored, bits=plan.bits)


def float_tensor(wanted: FloatTensor, source: Weights) -> Float:
    """The values of a float tensor.

    Raises:
        SegQuantError: naming the initializer, when it holds NaN or infinity.
    """
    if wanted.source is None:
        values = np.zeros(wanted.shape, dtype=np.float32)
    else:
        values = source.read_float32(wanted.source)
        check_finite(wanted.source, values)
    if wanted.transpose:
        values = values.T
    if values.size == np.prod(wanted.shape, dtype=np.int64):
        values = values.reshape(wanted.shape)
    if wanted.gain is not None:
        values = values * wanted.gain
    if wanted.shift is not None:
        values = values + wanted.shift
    return np.ascontiguousarray(np.broadcast_to(values, wanted.shape))


def check_finite(name: str, values: npt.NDArray[np.generic]) -> None:
    """Refuse NaN and infinity.

    Raises:
        SegQuantError: naming the weight and the first offending index.
    """
    if values.dtype.kind not in "fV":
        return
    flat = values.reshape(-1)
    for start in range(0, flat.size, _CHUNK_ELEMENTS):
        finite = np.isfinite(flat[start : start + _CHUNK_ELEMENTS].astype(np.float32))
        if not finite.all():
            index = start + int(np.argmin(finite))
            raise SegQuantError(
                f"weight '{name}' holds {flat[index]} at element {index}",
                hint="the checkpoint is damaged; fetch it again, then export again",
            )


def _smallest_scale(bias: IntegerBias, source: Weights) -> Float | None:
    if bias.source is None and bias.shift is None:
        return None
    values = np.zeros(1, dtype=np.float32)
    if bias.source is not None:
        values = source.read_float32(bias.source)
    shifted = values if bias.shift is None else values + bias.shift
    smallest: Float = (np.abs(shifted) / np.float32(bias.step * _BIAS_LIMIT)).astype(np.float32)
    return smallest


def _raised(weight: QuantizedWeight, smallest: Float | None) -> QuantizedWeight:
    """Scales of at least `smallest`, and codes that stand for about the same weights."""
    if smallest is None or (weight.scale >= smallest).all():
        return weight
    scale = np.maximum(weight.scale, smallest)
    codes = np.rint(weight.codes * (weight.scale / scale)[:, None]).astype(np.int8)
    return QuantizedWeight(codes=codes, scale=scale)
