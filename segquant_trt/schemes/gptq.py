"""GPTQ: round a weight column by column, later columns making up for the errors of earlier ones.

Frantar et al., arXiv 2210.17323, algorithm 1, which spreads each column's error by a row of the
upper Cholesky factor `U` of `H^-1`. Here its inverse `R = U^-1`, with `H = R R^T`, does the same:
the error `E` of a row costs `||E R||^2`, of which term j depends on columns up to j alone, so that
column j is rounded from the value `W_j + sum over i < j of E_i R_ij / R_jj` that would make its
term zero. That saves inverting, half of the work.

Rows are independent of each other: those of all weights that read the same input may be stacked
and rounded with one factorisation.

Four bits are so coarse that the range is worth a search with the errors that GPTQ itself ends with:
several multiples of the searched scales are tried for every output channel, and the best one is
refitted to its codes by least squares. Eight bits gain 0.1 dB by that, and are not searched.
"""

from __future__ import annotations

from dataclasses import dataclass
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

_TRIED_BELOW_BITS = 8
_MULTIPLES = (1.0, 0.95, 1.05, 0.9, 1.1, 0.84, 1.16)

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
    scale: npt.NDArray[np.float32] | None = None,
) -> QuantizedWeight:
    """Round float32[N, K] such that `||X (W - dequantised)^T||` is small, `gram` being `X^T X`.

    Scales are chosen before the first column is rounded, those of blocks too: the order of the
    columns then moves no column to another block. An input channel that was never active is
    rounded to nearest. The same arguments give the same bytes.

    Args:
        rows: the weight; finite.
        gram: float64[K, K] of the inputs as the codes see them, divided by the divisor.
        plan: bits, block and scale method; "mse" weighs errors with the Gram matrix's diagonal,
            and with four bits is followed by the search that the module describes.
        damping: added to every element of the diagonal, as a share of it: correlations shrink by
            `1 + damping`. Raised where a singular matrix needs more.
        batch: columns after which the errors of all earlier ones are applied at once.
        order: columns by falling activation energy, or as they come.
        smallest: float32[N], scales are at least this.
        scale: float32[N] or [N, blocks] to be used as they are, instead of chosen ones.

    Raises:
        SegQuantError: the Gram matrix holds NaN or infinity, or the plan's block is not positive.
    """
    energy = input_energy(gram)
    tried = plan.scale_method == "mse" and plan.bits < _TRIED_BELOW_BITS and scale is None
    if scale is None:
        scale = weight_scale(rows, plan, smallest=smallest, importance=energy)
    by_block = scale[:, None] if plan.block is None else scale
    last_first = np.arange(len(energy))[::-1]
    if order == "activation":
        last_first = np.argsort(-energy, kind="stable")[::-1]
    factor, weights = unit_factor(gram, energy, last_first, damping)
    size = max(rows.shape[1], 1) if plan.block is None else plan.block
    rounding = _Rounding(
        factor=factor,
        weights=weights,
        block_of=last_first // size,
        batch=batch,
        limit=code_limit(plan),
    )
    least = np.zeros(len(rows), np.float32) if smallest is None else smallest
    codes = np.empty(rows.shape, dtype=np.int8)
    found = by_block.astype(np.float32)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        values = np.ascontiguousarray(rows[part].T[last_first], dtype=np.float64)
        steps = np.ascontiguousarray(by_block[part].T)
        floor = least[part]
        if tried:
            coded, steps = rounding.best(values, steps, floor)
            steps = rounding.refitted(values, coded, steps, floor)
            found[part] = steps.T
        else:
            coded, _ = rounding.codes(values.copy(), steps)
        codes[part, last_first] = coded.T
    return QuantizedWeight(
        codes=codes, scale=found[:, 0] if plan.block is None else found, block=plan.block
    )


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
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`R_ij / R_jj` at [j, i], and `R_jj^2`; with `H = R R^T` and R upper triangular.

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
    diagonal = np.diagonal(factor).copy()
    factor /= diagonal[:, None]
    return factor, np.square(diagonal)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounding:
    """Rounds columns that are ordered last first; arrays are [K, n], steps [blocks, n]."""

    factor: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    block_of: npt.NDArray[np.intp]
    batch: int
    limit: int

    def codes(
        self, values: npt.NDArray[np.float64], steps: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
        """Codes of `values`, each overwritten by its error; and `||E R||^2`, float64[n].

        What earlier errors ask of a column is added up when its turn comes: of those before its
        batch by one matrix product for the whole batch.
        """
        codes = np.empty(values.shape, dtype=np.int8)
        cost = np.zeros(values.shape[1])
        for stop in range(len(values), 0, -self.batch):
            start = max(stop - self.batch, 0)
            wanted = self.factor[start:stop, stop:] @ values[stop:]
            wanted += values[start:stop]
            for column in reversed(range(start, stop)):
                value = wanted[column - start]
                value += self.factor[column, column + 1 : stop] @ values[column + 1 : stop]
                step = steps[self.block_of[column]]
                coded = encode(value.astype(np.float32), step, self.limit)
                codes[column] = coded
                decoded = coded.astype(np.float64) * step
                cost += self.weights[column] * np.square(value - decoded)
                values[column] -= decoded
        return codes, cost

    def best(
        self,
        values: npt.NDArray[np.float64],
        steps: npt.NDArray[np.float32],
        least: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Codes and steps of the multiple of `steps` that costs every output channel least."""
        codes, cost = self.codes(values.copy(), steps)
        chosen = steps.copy()
        for multiple in _MULTIPLES[1:]:
            trial = np.maximum(steps * np.float32(multiple), least)
            found, own = self.codes(values.copy(), trial)
            better = own < cost
            np.copyto(codes, found, where=better)
            np.copyto(chosen, trial, where=better)
            np.copyto(cost, own, where=better)
        return codes, chosen

    def refitted(
        self,
        values: npt.NDArray[np.float64],
        codes: npt.NDArray[np.int8],
        steps: npt.NDArray[np.float32],
        least: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """Steps of least cost for the codes, block after block; those before in their new form."""
        roots = np.sqrt(self.weights)[:, None]
        found: npt.NDArray[np.float32] = steps.copy()
        error = self.factor @ (values - codes * steps[self.block_of].astype(np.float64))
        error *= roots
        for block in range(len(steps)):
            own = slice(None) if len(steps) == 1 else np.flatnonzero(self.block_of == block)
            shape = self.factor[:, own] @ codes[own].astype(np.float64)
            shape *= roots
            power = np.square(shape).sum(axis=0)
            change = np.divide(
                (shape * error).sum(axis=0), power, out=np.zeros_like(power), where=power > 0.0
            )
            wanted = np.maximum((steps[block] + change).astype(np.float32), least)
            found[block] = np.where(wanted > 0.0, wanted, steps[block])
            error -= shape * (found[block].astype(np.float64) - steps[block])
        return found
