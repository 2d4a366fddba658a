"""Integer weights: symmetric, one scale per output channel, codes -127..127."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.records import WeightPlan

_SHRINK = np.linspace(1.0, 0.4, 31, dtype=np.float32)
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedWeight:
    """`W[n] ~ scale[n] codes[n]`. `codes`: int8[N, K], `scale`: float32[N], all positive."""

    codes: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    def dequantize(self) -> npt.NDArray[np.float32]:
        """float32[N, K]."""
        values: npt.NDArray[np.float32] = self.codes.astype(np.float32)
        values *= self.scale[:, None]
        return values


def quantize_weight(
    rows: npt.NDArray[np.float32],
    plan: WeightPlan,
    *,
    smallest: npt.NDArray[np.float32] | None = None,
) -> QuantizedWeight:
    """Quantise float32[N, K], output channels first.

    An all-zero channel gets scale 1 and codes 0. `smallest`: float32[N], scales are at least this.
    """
    limit = np.float32(2 ** (plan.bits - 1) - 1)
    scale = np.empty(len(rows), dtype=np.float32)
    codes = np.empty(rows.shape, dtype=np.int8)
    step = max(1, _BLOCK_ELEMENTS // max(rows.shape[1], 1))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        scale[block] = _scales(rows[block], plan, limit)
        if smallest is not None:
            scale[block] = np.maximum(scale[block], smallest[block])
        ratio = np.rint(rows[block] / scale[block, None])
        codes[block] = np.clip(ratio, -limit, limit)
    return QuantizedWeight(codes=codes, scale=scale)


def _scales(
    rows: npt.NDArray[np.float32], plan: WeightPlan, limit: np.float32
) -> npt.NDArray[np.float32]:
    amax = np.abs(rows).max(axis=1, initial=0.0)
    tiny = np.float32(np.finfo(np.float32).tiny)
    full: npt.NDArray[np.float32] = np.where(
        amax > 0.0, np.maximum(amax / limit, tiny), np.float32(1.0)
    ).astype(np.float32)
    if plan.scale_method == "absmax":
        return full
    best: npt.NDArray[np.float32] = full.copy()
    best_error = np.full(len(rows), np.inf, dtype=np.float32)
    for factor in _SHRINK:
        scale = np.maximum(full * factor, tiny)
        codes = np.clip(np.rint(rows / scale[:, None]), -limit, limit)
        error = np.square(rows - codes * scale[:, None]).sum(axis=1)
        better = error < best_error
        best[better] = scale[better]
        best_error[better] = error[better]
    return best
