"""Fit the codes of a group's shared input: segments, row factors, schemes, under one divisor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
from typing_extensions import assert_never

from segquant_trt.records import (
    ActivationScheme,
    PerStep,
    PerToken,
    RowFactor,
    SegmentPlan,
    Static,
)
from segquant_trt.records.options import RangeMethod
from segquant_trt.schemes import (
    SCHEMES,
    ValueHistogram,
    fake_quantize,
    row_factor,
)
from segquant_trt.score.group import Float, Group

FactorKind: TypeAlias = Literal["static", "per_token", "per_step"]

_FIT = {scheme.kind: scheme.fit for scheme in SCHEMES}
_TINY = np.float32(np.finfo(np.float32).tiny)


def fit_segments(
    group: Group,
    divisor: Float | None,
    sizes: Sequence[int],
    factor: FactorKind,
    kinds: Sequence[Sequence[str]],
    method: RangeMethod,
) -> tuple[SegmentPlan, ...]:
    """The best of `kinds` for every segment, by squared error on the calibration rows.

    Args:
        group: whose input is coded.
        divisor: float32[C], or None for ones.
        sizes: channels of each segment.
        factor: the kind of row factor.
        kinds: names of the schemes to choose from, for each segment.
        method: how ranges are found.
    """
    plans = []
    for columns, own in zip(_columns(sizes), kinds, strict=True):
        d = np.float32(1.0) if divisor is None else divisor[columns]
        rows = group.rows[..., columns] / d
        low, high = group.low[:, columns] / d, group.high[:, columns] / d
        plans.append(_fit_segment(rows, low, high, group.edges, factor, own, method))
    return tuple(plans)


def _fit_segment(
    rows: Float,
    low: Float,
    high: Float,
    edges: tuple[float, ...],
    kind: FactorKind,
    kinds: Sequence[str],
    method: RangeMethod,
) -> SegmentPlan:
    bins, _, channels = rows.shape
    factor = _factor(kind, low, high, edges)
    r = _row_factors(rows, factor)
    values = (rows / r).reshape(-1, channels)
    if isinstance(factor, PerToken):
        seen = ValueHistogram.of(values)
    else:
        # The calibration's extremes are of all that was seen, the rows a sample of it.
        scale = r[:, :1, 0] if isinstance(factor, PerStep) else np.ones((bins, 1), np.float32)
        ends = float((low / scale).min()), float((high / scale).max())
        seen = ValueHistogram.of(values, low=ends[0], high=ends[1])
    weights = r.reshape(-1, 1)
    options = [_FIT[name](seen, method) for name in kinds]
    errors = [_squared_error(values, scheme, weights) for scheme in options]
    best = options[int(np.argmin(errors))]
    return SegmentPlan(channels=channels, activation=best, factor=factor)


def _factor(kind: FactorKind, low: Float, high: Float, edges: tuple[float, ...]) -> RowFactor:
    match kind:
        case "static":
            return Static()
        case "per_token":
            return PerToken()
        case "per_step":
            amax = np.maximum(np.maximum(-low, high).max(axis=1), _TINY)
            return PerStep(edges=edges, factors=tuple(float(value) for value in amax))
        case _:
            assert_never(kind)


def _row_factors(rows: Float, factor: RowFactor) -> Float:
    """float32[B, R, 1] of rows [B, R, C]."""
    match factor:
        case Static():
            return np.ones((*rows.shape[:2], 1), dtype=np.float32)
        case PerToken():
            flat = row_factor(rows.reshape(-1, rows.shape[-1]), factor)
            return flat.reshape(*rows.shape[:2], 1)
        case PerStep():
            by_bin = np.asarray(factor.factors, dtype=np.float32)[:, None, None]
            return np.broadcast_to(by_bin, (*rows.shape[:2], 1))
        case _:
            assert_never(factor)


def _squared_error(values: Float, scheme: ActivationScheme, weights: Float) -> float:
    error = (fake_quantize(values, scheme) - values) * weights
    return float(np.square(error, dtype=np.float64).sum())


def coding_error(
    rows: Float, divisor: Float | None, segments: Sequence[SegmentPlan], *, taps: int
) -> Float:
    """What coding changes in the inputs: float32[B, R, C * taps], decoded minus exact."""
    error = np.empty_like(rows)
    for columns, part in zip(_columns([s.channels for s in segments], taps), segments, strict=True):
        channels = slice(columns.start // taps, columns.stop // taps)
        d = np.float32(1.0) if divisor is None else np.repeat(divisor[channels], taps)
        exact = rows[..., columns]
        scaled = exact / d
        r = _row_factors(scaled, part.factor)
        error[..., columns] = fake_quantize(scaled / r, part.activation) * r * d - exact
    return error


def _columns(sizes: Sequence[int], taps: int = 1) -> Iterator[slice]:
    start = 0
    for size in sizes:
        yield slice(start * taps, (start + size) * taps)
        start += size
