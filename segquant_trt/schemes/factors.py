"""Row factors: what a segment's rows are divided by before their codes, and multiplied by after."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from typing_extensions import assert_never

from segquant_trt.errors import SegQuantError
from segquant_trt.records import PerStep, PerToken, RowFactor, Static

_TINY = np.float32(np.finfo(np.float32).tiny)


def row_factor(
    x: npt.NDArray[np.floating],
    factor: RowFactor,
    timestep: float | npt.NDArray[np.generic] | None = None,
) -> npt.NDArray[np.float32]:
    """The factor of every row, float32[M, 1], at least the smallest normal number.

    A row of zeros has that smallest factor, and stays zero.

    Args:
        x: [M, K], the segment's input after smoothing.
        factor: how the factor is found.
        timestep: one for all rows, or [M]; needed by `per_step` only.

    Raises:
        SegQuantError: a `per_step` factor without a timestep, or with impossible edges or factors.
    """
    match factor:
        case Static():
            found = np.ones((len(x), 1), dtype=np.float32)
        case PerToken():
            found = np.abs(x).max(axis=1, keepdims=True, initial=0.0).astype(np.float32)
        case PerStep():
            found = _at_steps(factor, timestep, len(x))
        case _:
            assert_never(factor)
    at_least: npt.NDArray[np.float32] = np.maximum(found, _TINY)
    return at_least


def _at_steps(
    factor: PerStep, timestep: float | npt.NDArray[np.generic] | None, rows: int
) -> npt.NDArray[np.float32]:
    # Timesteps arrive as float32, and an edge is one of them: both must be rounded alike.
    edges = np.asarray(factor.edges, dtype=np.float32)
    factors = np.asarray(factor.factors, dtype=np.float32)
    ascending = len(edges) == len(factors) > 0 and bool((np.diff(edges) > 0.0).all())
    finite = np.isfinite(edges).all() and np.isfinite(factors).all()
    if not (ascending and finite and (factors > 0.0).all()):
        raise SegQuantError(
            f"{factor} is impossible: as many ascending edges as factors, all of them positive "
            "and finite, are needed",
            hint="undo the edit of the plan, or run 'segquant-trt plan' again",
        )
    if timestep is None:
        raise SegQuantError(
            "factors per step need a timestep, and this model's inputs have none",
            hint="choose static or per_token in the plan",
        )
    steps = np.broadcast_to(np.asarray(timestep, dtype=np.float32).reshape(-1), (rows,))
    index = np.maximum(np.searchsorted(edges, steps, side="right") - 1, 0)
    chosen: npt.NDArray[np.float32] = factors[index][:, None]
    return chosen
