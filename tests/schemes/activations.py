"""Inputs that schemes must cope with: odd widths, one polarity, constants, outliers, nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Float = npt.NDArray[np.float32]
EPSILON = 2.0**-24  # half a unit in the last place of float32, relative


def silu(x: Float) -> Float:
    return x / (1.0 + np.exp(-x))


def with_outliers(x: Float) -> Float:
    x = x.copy()
    x[0, 0], x[-1, -1] = 3000.0, -700.0
    return x


KINDS: dict[str, Callable[[Float], Float]] = {
    "normal": lambda x: x,
    "silu": lambda x: silu(2.0 * x),
    "positive": np.abs,
    "negative": lambda x: -np.abs(x) - 0.1,
    "constant": lambda x: np.full_like(x, -0.7),
    "constant_channels": lambda x: np.broadcast_to(x[:1], x.shape).copy(),
    "one_outlier": with_outliers,
    "zeros": np.zeros_like,
    "minute": lambda x: x * 1e-37,
    "vast": lambda x: x * 1e33,
}
WIDTHS = (1, 17, 1025)


def rows_of(kind: str, seed: int, shape: tuple[int, int]) -> Float:
    normal = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return np.asarray(KINDS[kind](normal), dtype=np.float32)


@st.composite
def inputs(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(KINDS), widths=WIDTHS) -> Float:
    """float32[M, K] of some kind."""
    shape = (draw(st.sampled_from((1, 3))), draw(st.sampled_from(widths)))
    return rows_of(draw(st.sampled_from(kinds)), draw(st.integers(0, 2**16)), shape)


def assert_product(found: Float, wanted: Float, a: Float, b: Float) -> None:
    """`found` is `wanted` = `a @ b.T` but for float32 rounding in any order of summation."""
    size = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64).T
    allowed = (a.shape[1] + 8) * 2 * EPSILON * size + np.finfo(np.float32).tiny
    assert (np.abs(found - wanted) <= allowed).all(), np.max(np.abs(found - wanted) / allowed)
