"""Divisors per input channel: SmoothQuant's migration and a rescale per segment, searched together.

A site computes `(x / d) @ (d W)`: the divisor moves range from activations into weights. Xiao et
al., arXiv 2211.10438, eq. 4: `d_c = max|x_c|^alpha / max|W_c|^(1 - alpha)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALPHAS: tuple[float | None, ...] = (None, *(index / 10 for index in range(11)))
EXPONENTS: tuple[float | None, ...] = (None, 0.0, 0.25, 0.5, 0.75, 1.0)

# The most that a channel is moved: far beyond any outlier, well inside float32.
_LARGEST_LOG2 = 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DivisorCandidate:
    """One divisor that was tried. `alpha` and `segment_exponent` as in `records.Smoothing`."""

    alpha: float | None
    segment_exponent: float | None
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DivisorChoice:
    """The best divisor, float32[C]; all ones (and no alpha, no exponent) where none helps."""

    divisor: npt.NDArray[np.float32]
    alpha: float | None
    segment_exponent: float | None
    error: float
    tried: tuple[DivisorCandidate, ...]

    @property
    def is_identity(self) -> bool:
        """Whether the site is best left without a divisor."""
        return self.alpha is None and self.segment_exponent is None


def channel_amax(rows: npt.NDArray[np.float32], *, taps: int = 1) -> npt.NDArray[np.float32]:
    """The largest magnitude per input channel of [..., C * taps], inputs or weights: [C]."""
    width = rows.shape[-1]
    flat = rows.reshape(-1, width)
    # Two passes without a copy: the array may be a whole weight.
    high = np.maximum(flat.max(axis=0, initial=0.0), -flat.min(axis=0, initial=0.0))
    amax: npt.NDArray[np.float32] = high.reshape(width // taps, taps).max(axis=1, initial=0.0)
    return amax


def per_column(divisor: npt.NDArray[np.float32], *, taps: int) -> npt.NDArray[np.float32]:
    """The divisor [C] for every column [C * taps] of patches and of `W.reshape(N, -1)`."""
    return np.repeat(divisor, taps)


def divisor_for(
    alpha: float | None,
    exponent: float | None,
    amax_x: npt.NDArray[np.float32],
    amax_w: npt.NDArray[np.float32],
    segments: tuple[int, ...],
    *,
    powers_of_two: bool = False,
) -> npt.NDArray[np.float32]:
    """The divisor float32[C], of geometric mean 1 over the channels that were active.

    Without an exponent it is SmoothQuant's over all channels. With one, every segment's
    SmoothQuant part has geometric mean 1, and `range ** exponent` is what tells segments apart;
    their range is the largest `amax_x` in them. A channel that was never active keeps 1. A
    channel without weights counts as if it had the smallest weight that any has. No divisor is
    beyond `2 ** +-16`.

    Args:
        alpha: 0 (weights alone) to 1 (activations alone); None: no SmoothQuant part.
        exponent: 0 to 1; None: no segment part.
        amax_x: float32[C], largest magnitudes of the inputs, see `channel_amax`.
        amax_w: float32[C], largest magnitudes over all weights that read the input.
        segments: consecutive channels, C in all.
        powers_of_two: round to powers of two, division by which is exact.
    """
    if sum(segments) != len(amax_x) or len(amax_x) != len(amax_w):
        raise ValueError(f"{segments} channels, {len(amax_x)} inputs, {len(amax_w)} weights")
    active = amax_x > 0.0
    logarithm = np.zeros(len(amax_x), dtype=np.float64)
    if alpha is not None:
        logarithm += alpha * _log2(amax_x) - (1.0 - alpha) * _log2(amax_w)
    if exponent is not None:
        start = 0
        for size in segments:
            part = slice(start, start + size)
            logarithm[part] -= _mean(logarithm[part], active[part])
            logarithm[part] += exponent * _log2(amax_x[part].max(initial=0.0, keepdims=True))
            start += size
    logarithm -= _mean(logarithm, active)
    logarithm[~active] = 0.0
    if powers_of_two:
        logarithm = np.rint(logarithm)
    clipped = np.clip(logarithm, -_LARGEST_LOG2, _LARGEST_LOG2)
    divisor: npt.NDArray[np.float32] = np.exp2(clipped).astype(np.float32)
    return divisor


def search_divisor(
    amax_x: npt.NDArray[np.float32],
    amax_w: npt.NDArray[np.float32],
    segments: tuple[int, ...],
    evaluate: Callable[[npt.NDArray[np.float32]], float],
    *,
    alphas: Sequence[float | None] = ALPHAS,
    exponents: Sequence[float | None] = EXPONENTS,
    powers_of_two: bool = False,
) -> DivisorChoice:
    """Evaluate every pair of alpha and exponent, and no divisor at all; the least error wins.

    Of equal errors the earlier wins, no divisor being the first; NaN never does. A divisor that
    two pairs share is evaluated once. A site of one segment has no use for exponents.

    Args:
        amax_x: as in `divisor_for`.
        amax_w: as in `divisor_for`.
        segments: as in `divisor_for`.
        evaluate: the error of the site's output, scales fitted anew, under a divisor float32[C].
        alphas: candidates; None for no SmoothQuant part.
        exponents: candidates; None for no segment part.
        powers_of_two: as in `divisor_for`.
    """
    tried: list[DivisorCandidate] = []
    known: dict[bytes, float] = {}
    best: tuple[DivisorCandidate, npt.NDArray[np.float32]] | None = None
    for alpha, exponent in _pairs(alphas, exponents if len(segments) > 1 else (None,)):
        divisor = divisor_for(
            alpha, exponent, amax_x, amax_w, segments, powers_of_two=powers_of_two
        )
        key = divisor.tobytes()
        if key in known:
            continue
        error = float(evaluate(divisor))
        error = known[key] = float("inf") if np.isnan(error) else error
        tried.append(DivisorCandidate(alpha=alpha, segment_exponent=exponent, error=error))
        if best is None or error < best[0].error:
            best = tried[-1], divisor
    assert best is not None
    found, divisor = best
    return DivisorChoice(
        divisor=divisor,
        alpha=found.alpha,
        segment_exponent=found.segment_exponent,
        error=found.error,
        tried=tuple(tried),
    )


def _pairs(
    alphas: Sequence[float | None], exponents: Sequence[float | None]
) -> Iterator[tuple[float | None, float | None]]:
    yield None, None
    for exponent in exponents:
        for alpha in alphas:
            yield alpha, exponent


def _log2(amax: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of zero, the logarithm of the smallest positive value; all zero where there is none."""
    positive = amax > 0.0
    if not positive.any():
        return np.zeros(amax.shape, dtype=np.float64)
    logarithm: npt.NDArray[np.float64] = np.log2(
        np.where(positive, amax, amax[positive].min()).astype(np.float64)
    )
    return logarithm


def _mean(values: npt.NDArray[np.float64], active: npt.NDArray[np.bool_]) -> float:
    return float(values[active].mean()) if active.any() else 0.0
