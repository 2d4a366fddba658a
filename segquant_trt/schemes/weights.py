"""Integer weights: symmetric codes, a scale per output channel or per block of input channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import WeightPlan

# Fine where int8 has its optimum, then down to where int4 has it under an outlier.
_SHRINK = (*np.linspace(1.0, 0.4, 31), *np.geomspace(0.37, 0.1, 10))
_REFITS = 2
# A few buffers of this many float32 stay in the cache of one core.
_CHUNK_ELEMENTS = 1 << 16
_Float = TypeVar("_Float", np.float32, np.float64)
_TINY = np.float32(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedWeight:
    """`W[n, k] ~ scale[n] codes[n, k]`, or `scale[n, k // block] codes[n, k]`.

    `codes`: int8[N, K]. `scale`: float32[N], or float32[N, ceil(K / block)] where `block` is not
    None; all positive. The last block may be short.
    """

    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    block: int | None = None

    def dequantize(self) -> npt.NDArray[np.float32]:
        """float32[N, K]."""
        values: npt.NDArray[np.float32] = self.codes.astype(np.float32)
        if self.block is None:
            values *= self.scale[:, None]
            return values
        for index in range(self.scale.shape[1]):
            columns = slice(index * self.block, (index + 1) * self.block)
            values[:, columns] *= self.scale[:, index, None]
        return values


def quantize_weight(
    rows: npt.NDArray[np.float32],
    plan: WeightPlan,
    *,
    smallest: npt.NDArray[np.float32] | None = None,
    importance: npt.NDArray[np.floating] | None = None,
) -> QuantizedWeight:
    """Round float32[N, K], output channels first, to the nearest codes.

    Args:
        rows: the weight; finite.
        plan: bits, block and scale method. `plan.rounding` is not looked at.
        smallest: float32[N], scales are at least this.
        importance: see `weight_scale`.

    Raises:
        SegQuantError: the plan's block is not positive.
    """
    limit = code_limit(plan)
    scale = weight_scale(rows, plan, smallest=smallest, importance=importance)
    codes = np.empty(rows.shape, dtype=np.int8)
    for part in _row_chunks(rows.shape):
        if plan.block is None:
            codes[part] = encode(rows[part], scale[part, None], limit)
            continue
        groups = _grouped(rows[part], plan.block)
        coded = encode(groups, scale[part, :, None], limit)
        codes[part] = coded.reshape(len(groups), -1)[:, : rows.shape[1]]
    return QuantizedWeight(codes=codes, scale=scale, block=plan.block)


def code_limit(plan: WeightPlan) -> int:
    """The largest code; the smallest is its negative."""
    return int(2 ** (plan.bits - 1) - 1)


def encode(
    values: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], limit: int
) -> npt.NDArray[np.float32]:
    """`values / scale` rounded half to even and clipped to `+-limit`, as float32 integers."""
    codes: npt.NDArray[np.float32] = np.divide(values, scale)
    np.rint(codes, out=codes)
    return np.clip(codes, -limit, limit, out=codes)


def weight_scale(
    rows: npt.NDArray[np.float32],
    plan: WeightPlan,
    *,
    smallest: npt.NDArray[np.float32] | None = None,
    importance: npt.NDArray[np.floating] | None = None,
) -> npt.NDArray[np.float32]:
    """The scales that `plan.scale_method` chooses: float32[N], or [N, blocks].

    A channel or block of zeros gets scale 1. "mse" tries scales from the full range down to a
    tenth of it, and refits the best one to its codes by least squares.

    Args:
        rows: float32[N, K].
        plan: bits, block and scale method.
        smallest: float32[N], scales are at least this.
        importance: [K], what a squared error of each input channel weighs in the search, such as
            the diagonal of the inputs' Gram matrix; equal weights without it.

    Raises:
        SegQuantError: the plan's block is not positive.
    """
    count, width = rows.shape
    if plan.block is not None and plan.block < 1:
        raise SegQuantError(
            f"weight block {plan.block} is impossible; a block has at least one input channel",
            hint="undo the edit of the plan: block is a positive number, or null for none",
        )
    size = max(width, 1) if plan.block is None else plan.block
    blocks = -(-width // size) if plan.block is not None else 1
    least = np.full(count, _TINY) if smallest is None else np.maximum(smallest, _TINY)
    emphasis = None if importance is None else _emphasis(importance, size)
    limit = code_limit(plan)
    scale = np.empty((count, blocks), dtype=np.float32)
    for part in _row_chunks(rows.shape):
        groups = _grouped(rows[part], size)
        amax = np.abs(groups).max(axis=2, initial=0.0)
        natural = np.where(amax > 0.0, amax / np.float32(limit), np.float32(1.0))
        full = np.maximum(natural, least[part, None]).astype(np.float32)
        if plan.scale_method == "mse":
            full = _searched(groups, full, least[part, None], emphasis, limit)
        scale[part] = full
    return scale[:, 0] if plan.block is None else scale


def _searched(
    groups: npt.NDArray[np.float32],
    full: npt.NDArray[np.float32],
    least: npt.NDArray[np.float32],
    emphasis: npt.NDArray[np.float64] | None,
    limit: int,
) -> npt.NDArray[np.float32]:
    """The scale [n, blocks] of least squared error over `groups` [n, blocks, size].

    The search runs on values in units of `full`, so that no square over- or underflows.
    """
    values = groups / full[..., None]
    decoded = np.empty_like(values)
    floor = least / full
    best = np.ones_like(full)
    best_error = _errors(values, best, emphasis, limit, decoded)
    for factor in _SHRINK[1:]:
        trial = np.maximum(np.float32(factor), floor)
        _keep_better(best, best_error, trial, _errors(values, trial, emphasis, limit, decoded))
    for _ in range(_REFITS):
        trial = np.maximum(_refitted(values, best, emphasis, limit), floor)
        _keep_better(best, best_error, trial, _errors(values, trial, emphasis, limit, decoded))
    found: npt.NDArray[np.float32] = np.maximum(full * best, least)
    return found


def _errors(
    values: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    emphasis: npt.NDArray[np.float64] | None,
    limit: int,
    scratch: npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Squared error of every group, float64[n, blocks]; `scratch` has the shape of `values`."""
    step = scale[..., None]
    np.divide(values, step, out=scratch)
    np.rint(scratch, out=scratch)
    np.clip(scratch, -limit, limit, out=scratch)
    np.multiply(scratch, step, out=scratch)
    np.subtract(values, scratch, out=scratch)
    np.square(scratch, out=scratch)
    return _weighted_sum(scratch, emphasis)


def _refitted(
    values: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    emphasis: npt.NDArray[np.float64] | None,
    limit: int,
) -> npt.NDArray[np.float32]:
    """The scale of least squared error for the codes that `scale` gives."""
    codes = encode(values, scale[..., None], limit)
    power = _weighted_sum(np.square(codes), emphasis)
    overlap = _weighted_sum(values * codes, emphasis)
    found = np.divide(overlap, power, out=scale.astype(np.float64), where=power > 0.0)
    return found.astype(np.float32)


def _weighted_sum(
    terms: npt.NDArray[np.float32], emphasis: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    if emphasis is None:
        total: npt.NDArray[np.float64] = terms.sum(axis=2, dtype=np.float64)
    else:
        total = np.einsum("nbk,bk->nb", terms, emphasis)
    return total


def _keep_better(
    best: npt.NDArray[np.float32],
    best_error: npt.NDArray[np.float64],
    trial: npt.NDArray[np.float32],
    error: npt.NDArray[np.float64],
) -> None:
    better = error < best_error
    np.copyto(best, trial, where=better)
    np.copyto(best_error, error, where=better)


def _emphasis(importance: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.float64]:
    largest = float(importance.max(initial=0.0)) or 1.0
    relative: npt.NDArray[np.float64] = importance.astype(np.float64) / largest
    grouped: npt.NDArray[np.float64] = _grouped(relative[None], size)[0]
    return grouped


def _grouped(rows: npt.NDArray[_Float], size: int) -> npt.NDArray[_Float]:
    """[n, K] as [n, blocks, size]; zeros fill the last block, they are coded without error."""
    count, width = rows.shape
    blocks = -(-width // size)
    if blocks * size != width:
        rows = np.pad(rows, ((0, 0), (0, blocks * size - width)))
    return rows.reshape(count, blocks, size)


def _row_chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    step = max(1, _CHUNK_ELEMENTS // max(shape[1], 1))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)
