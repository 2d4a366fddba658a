"""Figures of a case against a plain computation, and answers that are no answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segquant_trt.bench.compare import Case, answer_sqnr_db, compare_case
from segquant_trt.bench.rounds import Effort
from segquant_trt.errors import SegQuantError
from tests.bench.subjects import Sleeper

QUICK = Effort(iterations=15, duration_s=0.0, warm_up_ms=0.0)
X = np.arange(12, dtype=np.float32).reshape(4, 3) + 1
CASE = Case(lengths={"batch": 4}, inputs={"x": X}, batch=4)


def test_figures_of_a_case() -> None:
    subjects = [
        Sleeper(name="float", device_ms=8.0),
        Sleeper(name="close", device_ms=2.0, gain=0.9),
        Sleeper(name="same", device_ms=16.0),
    ]
    case, timings = compare_case(subjects, "float", CASE, QUICK)
    reference, close, same = case.subjects
    assert set(timings) == {"float", "close", "same"}
    assert (case.batch, case.shapes, case.title) == (4, {"x": (4, 3)}, "batch 4")
    assert (reference.speedup, reference.answer_sqnr_db) == (None, None)
    assert close.speedup is not None
    assert (close.speedup.low, close.speedup.median, close.speedup.high) == (4.0, 4.0, 4.0)
    assert close.samples_per_s == pytest.approx(4 / 2e-3)
    assert close.answer_sqnr_db == pytest.approx(20.0)  # an error of a tenth
    assert not close.answer_equal
    assert (same.answer_equal, same.answer_sqnr_db) == (True, None)
    assert same.speedup is not None
    assert same.speedup.median == 0.5
    assert all(found.energy_j_per_call is None for found in case.subjects)


def test_the_answer_s_sqnr_is_a_mean_of_decibels_over_samples() -> None:
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((5, 2, 7)).astype(np.float32)
    other = reference + 0.01 * rng.standard_normal((5, 2, 7)).astype(np.float32)
    by_hand = [
        10 * math.log10(sum(v * v for v in map(float, a.flat)) / sum(e * e for e in d.flat))
        for a, d in zip(
            reference, reference.astype(np.float64) - other.astype(np.float64), strict=True
        )
    ]
    found = answer_sqnr_db(reference, other, "b")
    assert found == pytest.approx(sum(by_hand) / 5, rel=1e-9)


def test_no_ratio_is_made_up_for_zeros() -> None:
    zeros = np.zeros((2, 3), dtype=np.float32)
    assert answer_sqnr_db(zeros, zeros + 1, "b") is None


def test_answers_of_another_shape_are_an_error() -> None:
    with pytest.raises(SegQuantError, match=r"b answers with shape \[2, 4\], the reference"):
        answer_sqnr_db(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), "b")


@pytest.mark.parametrize("gain", [math.nan, math.inf])
def test_an_answer_that_is_no_number_is_an_error(gain: float) -> None:
    subjects = [Sleeper(name="float"), Sleeper(name="half", gain=gain)]
    with pytest.raises(SegQuantError, match="half answers with NaN or infinity"):
        compare_case(subjects, "float", CASE, QUICK)
