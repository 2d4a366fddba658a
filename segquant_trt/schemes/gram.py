"""Gram matrices of a site's inputs: what a weight error costs at the site's output.

With `G = X^T X` over calibration rows `X[M, K]`, an error `E[N, K]` of the weight changes the
output by `||X E^T||^2 = sum over n of E[n] G E[n]^T`. A convolution's rows are its patches,
K = channels * taps in the order of `W.reshape(N, -1)`. One matrix of K = 15360 takes 1.9 GB: make
them for one site at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError

_CHUNK_ELEMENTS = 1 << 22
_TILE = 256


def gram(
    rows: npt.NDArray[np.floating], *, into: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Sum of `x^T x` over the rows of [..., K]: float64[K, K], exactly symmetric.

    Products of float32 are exact in float64, so that sums over parts of the rows add up to the
    whole to the last few bits, in any order.

    Args:
        rows: inputs of the site; leading axes are all rows.
        into: the matrix of earlier rows, as made here; these are added in place.

    Raises:
        SegQuantError: a row holds NaN or infinity.
    """
    from scipy.linalg.blas import dsyrk

    width = rows.shape[-1]
    flat = rows.reshape(-1, width)
    total = np.zeros((width, width), dtype=np.float64) if into is None else into
    step = max(1, _CHUNK_ELEMENTS // max(width, 1))
    for start in range(0, len(flat), step):
        part = flat[start : start + step].astype(np.float64)
        if not np.isfinite(part).all():
            raise SegQuantError(
                "an activation row holds NaN or infinity, and has no Gram matrix",
                hint="calibrate again; the float model produced NaN or infinity",
            )
        # BLAS adds to one triangle in place: no second matrix of this size.
        dsyrk(1.0, part.T, beta=1.0, c=total.T, lower=1, overwrite_c=1)
    _mirror(total)
    return total


def _mirror(matrix: npt.NDArray[np.float64]) -> None:
    """Copy what is above the diagonal below it, in tiles that fit the cache."""
    for start in range(0, len(matrix), _TILE):
        stop = start + _TILE
        corner = matrix[start:stop, start:stop]
        below = np.tri(len(corner), k=-1, dtype=np.bool_)
        corner[below] = corner.T[below]
        for other in range(stop, len(matrix), _TILE):
            matrix[other : other + _TILE, start:stop] = matrix[start:stop, other : other + _TILE].T


def divided(
    matrix: npt.NDArray[np.float64], divisor: npt.NDArray[np.float32], *, taps: int = 1
) -> npt.NDArray[np.float64]:
    """The Gram matrix [K, K] of `x / d`, for a divisor float32[K / taps] per input channel."""
    inverse = 1.0 / np.repeat(divisor.astype(np.float64), taps)
    result: npt.NDArray[np.float64] = matrix * inverse
    result *= inverse[:, None]
    return result


def output_energy(rows: npt.NDArray[np.float32], matrix: npt.NDArray[np.float64]) -> float:
    """`sum over n of W[n] G W[n]^T`: the squared output of float32[N, K] over the Gram's rows.

    Of a weight error it is the squared output error; its ratio to the weight's own is an SQNR.
    """
    step = max(1, _CHUNK_ELEMENTS // max(rows.shape[1], 1))
    total = 0.0
    for start in range(0, len(rows), step):
        part = rows[start : start + step].astype(np.float64)
        total += float(np.vdot(part @ matrix, part))
    return total
