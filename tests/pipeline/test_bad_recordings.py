"""Recorded inputs that do not fit the model are refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline import run_stage
from segquant_trt.records.options import CompileOptions
from tests.pipeline.refusals import refusal

Array = npt.NDArray[np.generic]


@pytest.fixture
def inputs(flux_copy: Path) -> dict[str, Array]:
    return dict(load_file(flux_copy / "excerpt.safetensors"))


def calibrated(run: Path, inputs: dict[str, Array]) -> SegQuantError:
    path = run / "mine.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in inputs.items()}, path)
    return refusal(lambda: run_stage("calibrate", CompileOptions(out=run, inputs=path)))


def test_inputs_with_a_missing_argument(flux_copy: Path, inputs: dict[str, Array]) -> None:
    del inputs["timestep"]
    assert "timestep" in calibrated(flux_copy, inputs).what


def test_inputs_of_another_shape(flux_copy: Path, inputs: dict[str, Array]) -> None:
    inputs["pooled_projections"] = inputs["pooled_projections"][:, :-1]
    assert "pooled_projections" in calibrated(flux_copy, inputs).what


def test_inputs_of_another_dtype(flux_copy: Path, inputs: dict[str, Array]) -> None:
    inputs["hidden_states"] = inputs["hidden_states"].astype(np.complex64)
    assert "hidden_states" in calibrated(flux_copy, inputs).what


def test_inputs_with_nan(flux_copy: Path, inputs: dict[str, Array]) -> None:
    inputs["hidden_states"] = inputs["hidden_states"].copy()
    inputs["hidden_states"].flat[3] = np.nan
    assert "NaN" in calibrated(flux_copy, inputs).what


def test_inputs_with_unequal_numbers_of_samples(flux_copy: Path, inputs: dict[str, Array]) -> None:
    inputs["timestep"] = inputs["timestep"][:-1]
    assert "samples" in calibrated(flux_copy, inputs).what


def test_truncated_inputs(flux_copy: Path) -> None:
    path = flux_copy / "mine.safetensors"
    path.write_bytes((flux_copy / "excerpt.safetensors").read_bytes()[:-100])
    error = refusal(lambda: run_stage("calibrate", CompileOptions(out=flux_copy, inputs=path)))
    assert "mine.safetensors" in error.what
