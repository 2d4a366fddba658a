"""A runtime that computes something else than the plan is caught; a coarse plan is not blamed."""

from __future__ import annotations

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loop import Denoise
from segquant_trt.verify.arithmetic import check_arithmetic

BATCHES = [{"x": np.random.default_rng(i).normal(size=(2, 50)).astype(np.float32)} for i in (0, 1)]


def off_by(relative: float, seed: int) -> Denoise:
    def denoise(inputs: object) -> np.ndarray:
        x = inputs["x"]  # type: ignore[index]
        noise = np.random.default_rng(seed).normal(size=x.shape)
        return np.asarray(x + relative * noise * np.abs(x).mean(), dtype=np.float32)

    return denoise


def test_wrong_arithmetic_is_caught() -> None:
    with pytest.raises(SegQuantError, match=r"abacus bundle reaches .* worth"):
        check_arithmetic(off_by(0, 0), off_by(0.01, 1), off_by(0.1, 2), BATCHES, target="abacus")


def test_rounding_differences_and_coarse_plans_pass() -> None:
    check_arithmetic(off_by(0, 0), off_by(0.01, 1), off_by(0.012, 2), BATCHES, target="abacus")
    check_arithmetic(off_by(0, 0), off_by(0.5, 1), off_by(0.5, 2), BATCHES, target="abacus")
    check_arithmetic(off_by(0, 0), off_by(0.1, 1), off_by(0.01, 2), BATCHES, target="abacus")
