"""Stored layouts and rows: every weight goes to its output's row, and back."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from segquant_trt.graph.weight_layout import WeightLayout, as_rows, from_rows

SHAPES: dict[WeightLayout, tuple[int, ...]] = {"KN": (7, 5), "NK": (5, 7), "NCHW": (5, 3, 2, 1)}


def test_every_layout_is_tried() -> None:
    assert set(SHAPES) == set(get_args(WeightLayout))


@pytest.mark.parametrize("layout", list(SHAPES))
def test_rows_are_outputs_and_the_way_back_is_exact(layout: WeightLayout) -> None:
    shape = SHAPES[layout]
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    rows = as_rows(weight, layout)
    assert rows.dtype == np.float32
    assert rows.flags.c_contiguous
    for output in range(5):
        mine = weight[:, output] if layout == "KN" else weight[output]
        np.testing.assert_array_equal(rows[output], mine.ravel(), strict=True)
    np.testing.assert_array_equal(from_rows(rows, layout, shape), weight, strict=True)
