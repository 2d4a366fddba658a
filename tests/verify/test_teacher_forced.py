"""Teacher-forced figures: who sees which inputs, and how dB are averaged."""

from __future__ import annotations

import numpy as np
import pytest

from segquant_trt.models.loop import Array, Float32
from segquant_trt.verify.teacher_forced import TeacherForced


def call(step: float, values: list[float]) -> dict[str, Array]:
    x = np.array(values, dtype=np.float32)[:, None]
    return {"x": x, "timestep": np.full(len(x), step, dtype=np.float32)}


def double(inputs: dict[str, Array]) -> Float32:
    return np.asarray(2 * inputs["x"], dtype=np.float32)


def test_the_reference_answers_and_errors_are_per_step_and_sample() -> None:
    seen: list[Array] = []

    def off_by_a_tenth(inputs: dict[str, Array]) -> Float32:
        seen.append(inputs["x"])
        return double(inputs) * np.array([[1.1], [1.01]], dtype=np.float32)

    forced = TeacherForced(double, off_by_a_tenth, None, timestep="timestep")  # type: ignore[arg-type]
    first, second = call(1000.0, [1.0, 2.0]), call(500.0, [3.0, -4.0])
    assert np.array_equal(forced(first), double(first))
    assert np.array_equal(forced(second), double(second))
    assert np.array_equal(seen[1], second["x"])
    steps = forced.figures()
    assert [step.timestep for step in steps] == [1000.0, 500.0]
    # 10 % off is 20 dB, 1 % off 40 dB; the step's figure is the mean of the dB, 30.
    assert [step.sqnr_db for step in steps] == pytest.approx([30.0, 30.0], abs=1e-2)
    assert all(step.sqnr_db_float16 is None for step in steps)


def test_a_timestep_met_twice_is_one_step() -> None:
    forced = TeacherForced(double, double, double, timestep="timestep")  # type: ignore[arg-type]
    forced(call(7.0, [1.0]))
    forced(call(7.0, [2.0, 3.0]))
    (step,) = forced.figures()
    assert step.sqnr_db == step.sqnr_db_float16 == 200.0


def test_samples_of_one_batch_may_be_at_different_steps() -> None:
    forced = TeacherForced(double, double, None, timestep="timestep")  # type: ignore[arg-type]
    inputs = call(0.0, [1.0, 2.0, 3.0])
    inputs["timestep"] = np.array([5.0, 6.0, 5.0], dtype=np.float32)
    forced(inputs)
    assert [step.timestep for step in forced.figures()] == [5.0, 6.0]
