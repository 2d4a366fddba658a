"""The reference of a whole site: what any backend must compute for a treatment, in NumPy.

`y = sum over segments of r * Q(x / (d r)) @ dequantised(W d)^T + b`; a convolution is a linear over
patches, whose columns are `taps` per input channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    KeepFloat,
    PerToken,
    SegmentPlan,
    SparseDual,
    Static,
    Treatment,
    WeightPlan,
)
from segquant_trt.schemes import sparse_dual
from segquant_trt.schemes.coding import fake_quantize
from segquant_trt.schemes.factors import row_factor
from segquant_trt.schemes.weights import QuantizedWeight, quantize_weight

Float: TypeAlias = npt.NDArray[np.float32]
# The codes of W * d, one per segment; or the site's own float weight [N, K], not multiplied by d.
SiteWeight: TypeAlias = tuple[QuantizedWeight, ...] | Float
_CEILING = 1e20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """`factor * (activation @ weight.T)`: one product that the site adds up.

    `start` is the first of its columns, `activation` float32[M, k], `weight` float32[N, k].
    """

    start: int
    activation: Float
    weight: Float
    factor: Float | None = None

    def product(self, low: int, high: int) -> Float:
        """What the site's columns from `low` to `high` contribute, float32[M, N]."""
        own = slice(max(low - self.start, 0), max(high - self.start, 0))
        part: Float = self.activation[:, own] @ self.weight[:, own].T
        return part if self.factor is None else self.factor * part


def site_output(
    x: Float,
    weight: SiteWeight,
    treatment: Treatment,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    bias: Float | None = None,
    timestep: float | npt.NDArray[np.generic] | None = None,
    taps: int = 1,
) -> Float:
    """The site's output under `treatment`, float32[M, N].

    Args:
        x: float32[M, K], the site's input rows, or a convolution's patches with K = channels * taps
            in the order of `W.reshape(N, -1)`; padding is zeros.
        weight: codes per segment, or float32[N, K], which is coded as the treatment says.
        treatment: of the site.
        arrays: what the treatment names by key.
        bias: float32[N], never multiplied by a row factor.
        timestep: one, or one per row [M]; for factors per step.
        taps: columns per input channel.

    Raises:
        SegQuantError: the treatment does not fit the shapes, or an array is missing.
    """
    y = np.zeros((len(x), _outputs(weight)), dtype=np.float32)
    for term in _terms(x, weight, treatment, arrays, timestep, taps):
        y += term.product(0, x.shape[1])
    return y if bias is None else y + bias


def segment_sqnr_db(
    x: Float,
    rows: Float,
    treatment: Treatment,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    *,
    sizes: Sequence[int],
    weight: SiteWeight | None = None,
    timestep: float | npt.NDArray[np.generic] | None = None,
    taps: int = 1,
) -> tuple[float | None, ...]:
    """SQNR in dB of what each group of input channels contributes to the output, at most 200.

    A narrow segment that shares its scales with a wide one can be lost while the whole output
    looks well. None for a segment that contributes nothing in float.

    Args:
        x: float32[M, K].
        rows: float32[N, K], the float weight.
        treatment: of the site.
        arrays: what the treatment names by key.
        sizes: channels of each segment, adding up to the site's; the treatment need not be split.
        weight: codes that were made before; else they are made of `rows`.
        timestep: as for `site_output`.
        taps: columns per input channel.

    Raises:
        SegQuantError: as `site_output`.
    """
    terms = list(_terms(x, rows if weight is None else weight, treatment, arrays, timestep, taps))
    found: list[float | None] = []
    for low, high in pairwise(_bounds(sizes, taps, x.shape[1])):
        reference = x[:, low:high].astype(np.float64) @ rows[:, low:high].T.astype(np.float64)
        error = reference - sum(term.product(low, high) for term in terms)
        signal, noise = float(np.sum(reference**2)), float(np.sum(error**2))
        ratio = signal / max(noise, signal / _CEILING) if signal > 0.0 else None
        found.append(None if ratio is None else float(10.0 * np.log10(ratio)))
    return tuple(found)


def coded_weight(
    rows: Float,
    treatment: Treatment,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    taps: int = 1,
) -> tuple[QuantizedWeight, ...]:
    """The codes of `rows` times the divisor, one `QuantizedWeight` per segment.

    Optimised codes are read from `arrays`: int8[N, K], and scales [N, columns], a segment's columns
    being one, or one per block of it; [N] where there is only one column.

    Args:
        rows: float32[N, K], the float weight.
        treatment: of the site; its weights are coded.
        arrays: what the treatment names by key.
        taps: columns per input channel.

    Raises:
        SegQuantError: the treatment does not fit the shapes, or an array is missing.
    """
    assert treatment.weight is not None
    columns = segment_columns(treatment.segments, taps, rows.shape[1])
    if treatment.weight.codes is not None:
        return _stored(treatment.weight, treatment.weight.codes, arrays, columns)
    divisor = column_divisor(treatment, arrays, taps, rows.shape[1])
    smoothed = rows if divisor is None else rows * divisor
    return tuple(quantize_weight(smoothed[:, part], treatment.weight) for part in columns)


def segment_columns(segments: Sequence[SegmentPlan], taps: int, columns: int) -> tuple[slice, ...]:
    """The columns of each segment.

    Raises:
        SegQuantError: they do not add up to `columns`.
    """
    bounds = _bounds([part.channels for part in segments], taps, columns)
    return tuple(slice(low, high) for low, high in pairwise(bounds))


def column_divisor(
    treatment: Treatment,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    taps: int,
    columns: int,
) -> Float | None:
    """The smoothing divisor of every column, float32[K]; None without smoothing.

    Raises:
        SegQuantError: the array is missing, of another length, or not positive and finite.
    """
    if treatment.smoothing is None:
        return None
    key = treatment.smoothing.divisor
    divisor = np.repeat(np.asarray(_array(arrays, key), dtype=np.float32), taps)
    if divisor.shape != (columns,):
        raise _misfit(f"divisor '{key}' of {len(divisor) // taps} channels", columns)
    if not (np.isfinite(divisor).all() and (divisor > 0.0).all()):
        raise SegQuantError(
            f"divisor '{key}' has values that are not positive and finite",
            hint="run 'segquant-trt score' again",
        )
    return divisor


def _terms(
    x: Float,
    weight: SiteWeight,
    treatment: Treatment,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    timestep: float | npt.NDArray[np.generic] | None,
    taps: int,
) -> Iterator[_Term]:
    if treatment.weight is None:
        assert not isinstance(weight, tuple), "a float site has float weights"
        yield _Term(start=0, activation=x, weight=weight)
        return
    codes = weight
    if not isinstance(codes, tuple):
        codes = coded_weight(codes, treatment, arrays, taps)
    columns = segment_columns(treatment.segments, taps, x.shape[1])
    divisor = column_divisor(treatment, arrays, taps, x.shape[1])
    smoothed = x if divisor is None else x / divisor
    for part, own, coded in zip(treatment.segments, columns, codes, strict=True):
        yield from _segment_terms(smoothed[:, own], own.start, coded, part, timestep, taps)


def _segment_terms(
    rows: Float,
    start: int,
    weight: QuantizedWeight,
    part: SegmentPlan,
    timestep: float | npt.NDArray[np.generic] | None,
    taps: int,
) -> Iterator[_Term]:
    scheme = part.activation
    if isinstance(scheme, KeepFloat):
        yield _Term(start=start, activation=rows, weight=weight.dequantize())
        return
    if isinstance(part.factor, PerToken) and taps > 1:
        raise SegQuantError(
            f"a convolution of {taps} taps has no per_token factor: a pixel is in many patches",
            hint="choose static or per_step in the plan",
        )
    factor: Float | None = None
    if not isinstance(part.factor, Static):
        factor = row_factor(rows, part.factor, timestep)
        rows = rows / factor
    if isinstance(scheme, SparseDual):
        pairs = sparse_dual.operands(rows, scheme, weight)
    else:
        pairs = ((fake_quantize(rows, scheme), weight.dequantize()),)
    for activation, decoded in pairs:
        yield _Term(start=start, activation=activation, weight=decoded, factor=factor)


def _stored(
    plan: WeightPlan,
    key: str,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    columns: Sequence[slice],
) -> tuple[QuantizedWeight, ...]:
    codes = np.asarray(_array(arrays, f"{key}.codes"), dtype=np.int8)
    scale = np.asarray(_array(arrays, f"{key}.scale"), dtype=np.float32).reshape(len(codes), -1)
    widths = [own.stop - own.start for own in columns]
    counts = [1 if plan.block is None else -(-width // plan.block) for width in widths]
    if codes.shape[1] != sum(widths) or scale.shape[1] != sum(counts):
        raise _misfit(f"codes '{key}' {codes.shape} with scales {scale.shape}", sum(widths))
    found = []
    for own, (first, last) in zip(columns, pairwise(accumulate(counts, initial=0)), strict=True):
        part = scale[:, first] if plan.block is None else scale[:, first:last]
        found.append(QuantizedWeight(codes=codes[:, own], scale=part, block=plan.block))
    return tuple(found)


def _bounds(sizes: Sequence[int], taps: int, columns: int) -> tuple[int, ...]:
    """First column of every segment, and the end of the last."""
    bounds = tuple(taps * end for end in accumulate(sizes, initial=0))
    if bounds[-1] != columns:
        raise _misfit(f"segments of {tuple(sizes)} channels with {taps} taps", columns)
    return bounds


def _array(arrays: Mapping[str, npt.NDArray[np.generic]], key: str) -> npt.NDArray[np.generic]:
    if key not in arrays:
        raise SegQuantError(
            f"the plan names the array '{key}', which scores.safetensors does not hold",
            hint="run 'segquant-trt score' and 'segquant-trt plan' again",
        )
    return arrays[key]


def _outputs(weight: SiteWeight) -> int:
    return len(weight[0].codes) if isinstance(weight, tuple) else len(weight)


def _misfit(what: str, columns: int) -> SegQuantError:
    return SegQuantError(
        f"{what} do not fit a weight of {columns} input columns",
        hint="undo the edit of the plan, or run 'segquant-trt plan' again",
    )
