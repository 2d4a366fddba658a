"""Search a group's divisor: the one that leaves the least noise at the denoiser's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segquant_trt.records import WeightPlan
from segquant_trt.schemes import quantize_weight
from segquant_trt.schemes.smoothing import DivisorChoice, channel_amax, search_divisor
from segquant_trt.score.coding import FactorKind, coding_error, fit_segments
from segquant_trt.score.group import Float, Group, Member

_SEARCH_ROWS = 8  # per bin: the search compares dozens of divisors


def best_divisor(
    group: Group,
    factor: FactorKind,
    weight: WeightPlan,
    *,
    kinds: Sequence[str] = ("symmetric", "shifted"),
) -> DivisorChoice:
    """The divisor by output noise of the whole group, activations and weights coded.

    SmoothQuant's alpha and the exponent of every segment's range are searched jointly.
    """
    some = _thinned(group)
    taps = {member.site.name: member.taps for member in some.members}
    amax_x = np.maximum(np.abs(group.low), np.abs(group.high)).max(axis=0)
    amax_w = np.max([_weight_amax(member) for member in group.members], axis=0)

    def evaluate(divisor: Float) -> float:
        # Ranges are searched for the divisor that wins; here dozens are compared.
        segments = fit_segments(some, divisor, (some.channels,), factor, (kinds,), "amax")
        noise = 0.0
        for member in some.members:
            repeated = np.repeat(divisor, taps[member.site.name])
            error = coding_error(member.rows, divisor, segments, taps=member.taps)
            noise += float(member.noise(member.product(error, member.weight)).mean())
            noise += float(weight_noise(member, repeated, weight).mean())
        return noise

    return search_divisor(amax_x, amax_w, group.segments, evaluate)


def weight_noise(member: Member, repeated: Float | None, plan: WeightPlan) -> Float:
    """Noise of rounding the weight to nearest, its columns times `repeated` float32[K]."""
    own = own_columns(member, repeated)
    scaled = member.weight if own is None else member.weight * own
    decoded = quantize_weight(scaled, replace(plan, codes=None)).dequantize()
    restored = decoded if own is None else decoded / own
    error = member.product(member.rows, restored - member.weight)
    return np.asarray(member.weight_noise(error, plan, divided=True), dtype=np.float32)


def own_columns(member: Member, repeated: Float | None) -> Float | None:
    """The divisor of each column that each output channel reads: [K], or [N, K] with groups."""
    if repeated is None or member.site.groups == 1:
        return repeated
    shares = np.split(repeated, member.site.groups)
    return np.repeat(np.stack(shares), len(member.weight) // member.site.groups, axis=0)


def _weight_amax(member: Member) -> Float:
    """Largest weight magnitude per input channel, float32[C]."""
    if member.site.groups == 1:
        return channel_amax(member.weight, taps=member.taps)
    shares = np.split(member.weight, member.site.groups, axis=0)
    return np.concatenate([channel_amax(share, taps=member.taps) for share in shares])


def _thinned(group: Group) -> Group:
    members = tuple(replace(m, rows=_some(m.rows)) for m in group.members)
    return replace(group, rows=_some(group.rows), members=members)


def _some(rows: Float) -> Float:
    return rows[:, :: max(1, rows.shape[1] // _SEARCH_ROWS)]
