"""GPTQ: round a weight column by column, later columns making up for the errors of earlier ones.

Frantar et al., arXiv 2210.17323, algorithm 1. Rows are independent of each other: those of all
weights that read the same input may be stacked and rounded with one factorisation.
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
    columns = np.arange(len(energy))
    if order == "activation":
        columns = np.argsort(-energy, kind="stable")
    block_of = np.zeros_like(columns) if plan.block is None else columns // plan.block
    factor = inverse_factor(gram, energy, columns, damping)
    codes = np.empty(rows.shape, dtype=np.int8)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        steps = np.ascontiguousarray(by_block[part].T)
        values = np.ascontiguousarray(rows[part].T[columns], dtype=np.float64)
        coded = _round_columns(values, factor, steps, block_of, batch, code_limit(plan))
        codes[part, columns] = coded.T
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


def inverse_factor(
    gram: npt.NDArray[np.float64],
    energy: npt.NDArray[np.float64],
    columns: npt.NDArray[np.intp],
    damping: float,
) -> npt.NDArray[np.float64]:
    """Transpose of the upper Cholesky factor of `H^-1`: lower `V[K, K]` with `V V^T = H^-1`.

    `H` is `gram` with `energy * (1 + damping)` as diagonal, rows and columns in the order
    `columns`. The Cholesky factor `L` of H in reverse order gives it without forming the inverse:
    reversed back, `L^-1` is upper triangular, and the transpose of it is V.
    """
    from scipy.linalg import cholesky, lapack

    backwards = columns[::-1]
    while True:
        hessian = gram[np.ix_(backwards, backwards)]
        np.fill_diagonal(hessian, energy[backwards] * (1.0 + damping))
        try:
            # Of a symmetric matrix the transpose is the same one in the order that LAPACK reads.
            lower = cholesky(hessian.T, lower=True, overwrite_a=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            damping = max(10.0 * damping, _LEAST_DAMPING)
    inverse, _ = lapack.dtrtri(lower, lower=1, overwrite_c=1)
    return np.ascontiguousarray(inverse.T[::-1, ::-1])


def _round_columns(
    values: npt.NDArray[np.float64],
    factor: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float32],
    block_of: npt.NDArray[np.intp],
    batch: int,
    limit: int,
) -> npt.NDArray[np.int8]:
    """Codes [K, n] of `values` [K, n], overwriting every column by its error over `V[j, j]`.

    `steps`: [blocks, n], the scales. A column is updated when its turn comes, by all earlier
    errors at once: those before its batch by one matrix product for the whole batch.
    """
    codes = np.empty(values.shape, dtype=np.int8)
    for start in range(0, len(values), batch):
        stop = min(start + batch, len(values))
        values[start:stop] -= factor[start:stop, :start] @ values[:start]
        for column in range(start, stop):
            value = values[column]
            value -= factor[column, start:column] @ values[start:column]
            step = steps[block_of[column]]
            coded = encode(value.astype(np.float32), step, limit)
            codes[column] = coded
            value -= coded.astype(np.float64) * step
            value /= factor[column, column]
    return codes
