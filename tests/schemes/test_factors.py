"""Row factors: static, per token, per step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import PerStep, PerToken, Static
from segquant_trt.schemes import row_factor
from tests.schemes.activations import Float, inputs, rows_of

TINY = np.finfo(np.float32).tiny


@given(x=inputs())
def test_per_token_is_the_largest_magnitude_of_the_row(x: Float) -> None:
    found = row_factor(x, PerToken())
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [max(*map(abs, row.tolist()), TINY) for row in x]
    assert (np.abs(x / found) <= 1.0).all()


def test_rows_of_zeros_stay_zero() -> None:
    x = np.zeros((2, 17), dtype=np.float32)
    x[1, 3] = -2.0
    found = row_factor(x, PerToken())
    assert found[:, 0].tolist() == [TINY, 2.0]
    assert not (x / found)[0].any()


@given(x=inputs(widths=(1, 17)))
def test_static_changes_nothing(x: Float) -> None:
    np.testing.assert_array_equal(row_factor(x, Static()), np.ones((len(x), 1), np.float32))


@given(
    edges=st.lists(st.integers(-5, 1000), min_size=1, max_size=6, unique=True).map(sorted),
    steps=st.lists(st.floats(-10, 1010, width=32), min_size=1, max_size=9),
)
def test_per_step_takes_the_last_edge_that_is_not_above(edges: list, steps: list) -> None:
    factors = [0.5 + index for index in range(len(edges))]
    x = rows_of("normal", 0, (len(steps), 3))
    plan = PerStep(edges=tuple(map(float, edges)), factors=tuple(factors))
    found = row_factor(x, plan, np.array(steps, dtype=np.float32))
    wanted = []
    for step in steps:
        reached = [factor for edge, factor in zip(edges, factors, strict=True) if edge <= step]
        wanted.append(reached[-1] if reached else factors[0])
    assert found[:, 0].tolist() == wanted


def test_edges_that_are_no_float32_still_meet_their_own_timestep() -> None:
    plan = PerStep(edges=(0.0, 0.7), factors=(1.0, 2.0))
    assert float(np.float32(0.7)) < 0.7
    x = np.ones((3, 1), dtype=np.float32)
    steps = np.array([0.7, 0.69, -1.0], dtype=np.float32)
    assert row_factor(x, plan, steps)[:, 0].tolist() == [2.0, 1.0, 1.0]
    assert row_factor(x, plan, 0.7)[:, 0].tolist() == [2.0, 2.0, 2.0]
    assert row_factor(x, plan, np.array([[1], [0], [1]]))[:, 0].tolist() == [2.0, 1.0, 2.0]


def test_steps_need_a_timestep() -> None:
    with pytest.raises(SegQuantError, match="need a timestep"):
        row_factor(np.ones((1, 1)), PerStep(edges=(0.0,), factors=(1.0,)))


@pytest.mark.parametrize(
    ("edges", "factors"),
    [
        ((), ()),
        ((0.0, 1.0), (1.0,)),
        ((1.0, 0.0), (1.0, 1.0)),
        ((0.0, 0.0), (1.0, 1.0)),
        ((0.0,), (0.0,)),
        ((0.0,), (float("nan"),)),
        ((float("nan"),), (1.0,)),
        ((0.0,), (float("inf"),)),
    ],
)
def test_impossible_steps_are_refused(edges: tuple, factors: tuple) -> None:
    with pytest.raises(SegQuantError, match="impossible"):
        row_factor(np.ones((1, 1)), PerStep(edges=edges, factors=factors), 0.0)
