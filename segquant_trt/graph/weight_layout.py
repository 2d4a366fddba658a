"""How a weight is stored, and its form with output channels first."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

WeightLayout: TypeAlias = Literal["KN", "NK", "NCHW"]


def as_rows(weight: npt.NDArray[np.float32], layout: WeightLayout) -> npt.NDArray[np.float32]:
    """The stored weight as float32[N, K]; a convolution's K is channels times taps."""
    rows = weight.T if layout == "KN" else weight.reshape(len(weight), -1)
    return np.ascontiguousarray(rows)


def from_rows(
    rows: npt.NDArray[np.float32], layout: WeightLayout, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """float32[N, K] in the layout and `shape` that a weight is stored in."""
    return np.ascontiguousarray(rows.T if layout == "KN" else rows).reshape(shape)
