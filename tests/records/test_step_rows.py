"""Which timesteps are frozen ones: exact, or rounded as pipelines round; nothing else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.records import FrozenSteps
from segquant_trt.records.step_rows import missed_steps, nearest_steps, step_edges, table_steps

TYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def steps_of(timesteps: tuple[float, ...]) -> FrozenSteps:
    return FrozenSteps(
        schedule="default:1", timestep="t", timesteps=timesteps, sites=(), macs_per_sample=0,
        fallback=False,
    )  # fmt: skip


def leading(count: int, offset: int = 1) -> np.ndarray:
    """DDIM's timesteps with `leading` spacing, as Stable Diffusion has them."""
    return np.arange(count) * (1000 // count) + offset


def flowing(count: int, shift: float) -> np.ndarray:
    """Sigmas of a flow-matching schedule with a shift."""
    even = np.linspace(1.0, 1.0 / count, count)
    return shift * even / (1.0 + (shift - 1.0) * even)


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9),
    st.lists(st.floats(-2e4, 2e4, width=32), min_size=1, max_size=20),
)
def test_the_nearest_step_is_found(given_steps: list[float], values: list[float]) -> None:
    steps = table_steps(given_steps)
    frozen = steps_of(steps)
    assert nearest_steps(frozen, np.array(steps)).tolist() == list(steps)
    assert not missed_steps(frozen, np.array(steps)).size
    assert (np.diff(step_edges(steps)) >= 0).all()
    missed = missed_steps(frozen, np.array(values)).tolist()
    for value in values:
        distance = min(abs(value - step) for step in steps)
        if value not in missed:
            nearest = float(nearest_steps(frozen, np.array([value]))[0])
            assert abs(value - nearest) == distance
            assert distance == 0.0 or distance < frozen.half_gap
            assert distance <= 2.0**-7 * abs(nearest)
        else:
            assert distance > 0.0


@pytest.mark.parametrize(("table", "run"), [(20, 25), (20, 19), (20, 21), (4, 5), (50, 40)])
def test_another_schedule_is_not_taken_for_the_frozen_one(table: int, run: int) -> None:
    """Hits are timesteps that both schedules have, or that rounding makes of the table's."""
    frozen = steps_of(table_steps(leading(table)))
    missed = missed_steps(frozen, leading(run))
    assert sorted(missed) == sorted(set(leading(run)) - set(leading(table)))
    own = leading(table).astype(np.float32)
    rounded = {float(v) for dtype in TYPES.values() for v in own.astype(dtype)}
    missed = missed_steps(frozen, leading(run).astype(np.float32))
    assert sorted(missed) == sorted(set(leading(run)) - set(leading(table)) - rounded)
    spread = np.linspace(999.0, 0.0, table).astype(np.float32)
    other = np.linspace(999.0, 0.0, run).astype(np.float32)
    missed = missed_steps(steps_of(table_steps(spread)), other)
    assert len(missed) >= len(other) - len(np.intersect1d(spread, other)) - 1


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("count", [1, 4, 20, 28, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0, 3.16])
def test_timesteps_rounded_by_pipelines_hit(kind: str, count: int, shift: float) -> None:
    """FLUX rounds t and t / 1000 to the latents' type, Stable Diffusion t alone."""
    dtype = TYPES[kind]
    times = (1000.0 * flowing(count, shift)).astype(np.float32)
    for frozen, values in (
        (steps_of(table_steps(times)), times.astype(dtype).astype(np.float32)),
        (
            steps_of(table_steps(times / np.float32(1000.0))),
            (times.astype(dtype).astype(np.float32) / np.float32(1000.0))
            .astype(dtype)
            .astype(np.float32),
        ),
    ):
        own = np.array(frozen.timesteps, np.float32)[::-1]
        apart = np.abs(values.astype(np.float64) - own) < frozen.half_gap
        missed = missed_steps(frozen, values)
        assert set(missed) == set(values[~apart].astype(np.float64))
        assert apart.mean() > 0.8
        found = nearest_steps(frozen, values)
        np.testing.assert_array_equal(found[apart], own[apart])


def test_a_few_units_of_float32_hit() -> None:
    steps = (0.1, 0.3332999944686890, 0.98)
    frozen = steps_of(table_steps(steps))
    own = np.array(frozen.timesteps, np.float32)
    for units in (1, 2, 3):
        assert not missed_steps(frozen, own + units * np.spacing(own)).size
        assert not missed_steps(frozen, own - units * np.spacing(own)).size
    assert missed_steps(frozen, own + 40 * np.spacing(own)).size == 3


def test_misses_are_named() -> None:
    frozen = steps_of((0.0, 10.0, 14.0))
    assert frozen.half_gap == 2.0
    given_values = np.array([0.0, 0.001, 10.01, 12.0, 14.0, 15.9, np.nan, np.inf, 1e30])
    np.testing.assert_array_equal(
        missed_steps(frozen, given_values), [0.001, 10.01, 12.0, 15.9, np.nan, np.inf, 1e30]
    )
    assert steps_of((1.0,)).half_gap == np.inf
    assert missed_steps(steps_of((981.0,)), np.array([977.0, 979.0, 981.0])).tolist() == [977, 979]
