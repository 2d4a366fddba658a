"""The calibration record: a round trip, and files that were altered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.records.calibration import (
    ActivationStats,
    Calibration,
    read_calibration,
    write_calibration,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stats = ActivationStats(
        minimum=np.full((1, 2), -1.0, dtype=np.float32),
        maximum=np.ones((1, 2), dtype=np.float32),
        histogram=np.ones((1, 2048), dtype=np.int64),
        exponent=np.zeros(1, dtype=np.int32),
        rows=np.zeros((1, 3, 2), dtype=np.float32),
        elements_per_sample=4,
    )
    calibration = Calibration(
        onnx_sha256="a",
        checkpoint_sha256="b",
        origin="inputs",
        samples=2,
        bin_edges=(0.5,),
        tensors={"x": stats},
        patches={"conv": np.arange(24, dtype=np.float32).reshape(2, 3, 4)},
    )
    write_calibration(tmp_path / "calibration.safetensors", calibration)
    return tmp_path / "calibration.safetensors"


def _header(path: Path) -> dict[str, Any]:
    with safe_open(str(path), framework="numpy") as file:
        header: dict[str, Any] = json.loads(file.metadata()["calibration"])
    return header


def test_a_calibration_survives_a_round_trip(path: Path) -> None:
    found = read_calibration(path)
    assert (found.samples, found.bin_edges, found.origin) == (2, (0.5,), "inputs")
    assert found.tensors["x"].minimum.tolist() == [[-1.0, -1.0]]
    write_calibration(path.with_name("again"), found)
    assert path.with_name("again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"elements_per_sample": []},
        {"tensors": 3},
        {"tensors": [["x"]]},
        {"bin_edges": None},
        {"bin_edges": ["low"]},
        {"tensors": ["x", "y"], "elements_per_sample": [4, 4]},
    ],
)
def test_altered_headers_are_refused(path: Path, change: dict[str, Any]) -> None:
    text = json.dumps(_header(path) | change)
    save_file(load_file(path), path, metadata={"calibration": text})
    with pytest.raises(SegQuantError, match="not a readable calibration"):
        read_calibration(path)


@pytest.mark.parametrize("text", ["[]", "7", "{"])
def test_headers_of_another_form_are_refused(path: Path, text: str) -> None:
    save_file(load_file(path), path, metadata={"calibration": text})
    with pytest.raises(SegQuantError, match="not a readable calibration"):
        read_calibration(path)
