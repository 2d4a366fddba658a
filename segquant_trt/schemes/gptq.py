"""GPTQ: round a weight column by column, later columns making up for the errors of earlier ones.

Frantar et al., arXiv 2210.17323, algorithm 1, which spreads each column's error by a row of the
upper Cholesky factor `U` of `H^-1`. Here its inverse `R = U^-1`, with `H = R R^T`, does the same:
the error `E` of a row costs `||E R||^2`, of which term j depends on columns up to j alone, so that
column j is rounded from the value `W_j + sum over i < j of E_i R_ij / R_jj` that would make its
term zero. That saves inverting, half of the work.

Rows are independent of each other: those of all weights that read the same input may be stacked
and rounded with one factorisation.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.records import WeightPlan
from segquant_trt.schemes.weights import QuantizedWeight, code_limit, encode, weight_scale

ColumnOrder = Literal["activation", "natural"]

# A share of each channel's own energy. The paper's 0.01 of the mean lets one massive channel drown
# all others (1 dB behind nearest where this is 4.5 dB ahead), and is behind on plain inputs too.
DAMPING = 0.1

# Columns of one batch times these rows, in float64, stay in the cache of one core.
_ROWS = 1024
_LEAST_DAMPING = 1e-9


def gptq(
    rows: npt.NDArray[np.float32],
    gram: npt.NDArray[np.float64],
    plan: WeightPlan,
    *,
    damping: float = DAMPING,
    batch: int = 128,
    order: ColumnOrder = "activation",
    smallest: npt.NDArray[np.float32] | None = None,
) -> QuantizedWeight:
    """Round float32[N, K] such that `||X (W - dequantised)^T||` is small, `gram` being `X^T X`.

    Scales are chosen before the first column is rounded, those of blocks too: the order of the
    columns then moves no column to another block. An input channel that was never active is
    rounded to nearest. The same arguments give the same bytes.

    Args:
        rows: the weight; finite.
        gram: float64[K, K] of the inputs as the codes see them, divided by the divisor.
        plan: bits, block and scale method; "mse" weighs errors with the Gram matrix's diagonal.
        damping: added to every element of the diagonal, as a share of it: correlations shrink by
            `1 + damping`. Raised where a singular matrix needs more.
        batch: columns after which the errors of all earlier ones are applied at once.
        order: columns by falling activation energy, or as they come.
        smallest: float32[N], scales are at least this.

    Raises:
        SegQuantError: the Gram matrix holds NaN or infinity, or the plan's block is not positive.
    """
    energy = input_energy(gram)
    scale = weight_scale(rows, plan, smallest=smallest, importance=energy)
    by_block = scale[:, None] if plan.block is None else scale
    last_first = np.arange(len(energy))[::-1]
    if order == "activation":
        last_first = np.argsort(-energy, kind="stable")[::-1]
    factor = unit_factor(gram, energy, last_first, damping)
    block_of = np.zeros_like(last_first) if plan.block is None else last_first // plan.block
    codes = np.empty(rows.shape, dtype=np.int8)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        steps = np.ascontiguousarray(by_block[part].T)
        values = np.ascontiguousarray(rows[part].T[last_first], dtype=np.float64)
        coded = _round_columns(values, factor, steps, block_of, batch, code_limit(plan))
        codes[part, last_first] = coded.T
    return QuantizedWeight(codes=codes, scale=scale, block=plan.block)


def input_energy(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The diagonal of `gram`, float64[K]: what an error in each input channel's weights costs.

    A channel that was never active counts like the least active one.

    Raises:
        SegQuantError: the diagonal holds NaN or infinity.
    """
    energy = np.diagonal(gram).astype(np.float64)
    if not np.isfinite(energy).all():
        raise SegQuantError(
            "the Gram matrix of a site's input holds NaN or infinity",
            hint="calibrate again; the float model produced NaN or infinity",
        )
    active = energy > 0.0
    energy[~active] = energy[active].min() if active.any() else 1.0
    return energy


def unit_factor(
    gram: npt.NDArray[np.float64],
    energy: npt.NDArray[np.float64],
    last_first: npt.NDArray[np.intp],
    damping: float,
) -> npt.NDArray[np.float64]:
    """`R_ij / R_jj` at [j, i], with `H = R R^T` and R upper triangular; float64[K, K].

    `H` is `gram` with `energy * (1 + damping)` as diagonal. Rows and columns are in the order
    `last_first`, opposite to that of rounding: R is then LAPACK's lower factor, and what column j
    needs of it a contiguous row of an upper triangle.
    """
    from scipy.linalg import cholesky

    while True:
        hessian = gram[np.ix_(last_first, last_first)]
        np.fill_diagonal(hessian, energy[last_first] * (1.0 + damping))
        try:
            # Of a symmetric matrix the transpose is the same one in the order that LAPACK reads.
            lower = cholesky(hessian.T, lower=True, overwrite_a=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            damping = max(10.0 * damping, _LEAST_DAMPING)
    factor: npt.NDArray[np.float64] = lower.T
    factor /= np.diagonal(factor).copy()[:, None]
    return factor


def _round_columns(
    values: npt.NDArray[np.float64],
    factor: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float32],
    block_of: npt.NDArray[np.intp],
    batch: int,
    limit: int,
) -> npt.NDArray[np.int8]:
    """Codes [K, n] of `values` [K, n], last row first; every value is overwritten by its error.

    `steps`: [blocks, n], the scales. What earlier errors ask of a column is added up when its turn
    comes: of those before its batch by one matrix product for the whole batch.
    """
    codes = np.empty(values.shape, dtype=np.int8)
    for stop in range(len(values), 0, -batch):
        start = max(stop - batch, 0)
        wanted = factor[start:stop, stop:] @ values[stop:]
        wanted += values[start:stop]
        for column in reversed(range(start, stop)):
            value = wanted[column - start]
            value += factor[column, column + 1 : stop] @ values[column + 1 : stop]
            step = steps[block_of[column]]
            coded = encode(value.astype(np.float32), step, limit)
            codes[column] = coded
            values[column] -= coded.astype(np.float64) * step
    return codes
