"""A damaged, foreign or wrongly called bundle is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

import segquant_trt
from segquant_trt.records.bundle_layout import sealed
from tests.pipeline.refusals import refusal

Array = npt.NDArray[np.generic]


@pytest.fixture
def inputs(flux_copy: Path) -> dict[str, Array]:
    return dict(load_file(flux_copy / "excerpt.safetensors"))


@pytest.fixture
def call(flux_copy: Path, inputs: dict[str, Array]) -> Callable[[dict[str, Array]], object]:
    bundle = segquant_trt.load(flux_copy / "bundle")
    batched = {name: array[:2] for name, array in inputs.items() if not name.endswith("_ids")}
    whole = {name: array for name, array in inputs.items() if name.endswith("_ids")}
    return lambda changed: bundle.run(batched | whole | changed)


def test_a_bundle_called_with_a_wrong_shape(
    call: Callable[[dict[str, Array]], object], inputs: dict[str, Array]
) -> None:
    call({})
    error = refusal(lambda: call({"hidden_states": inputs["hidden_states"][0]}))
    assert "hidden_states" in error.what


def test_a_bundle_called_with_a_wrong_dtype(
    call: Callable[[dict[str, Array]], object], inputs: dict[str, Array]
) -> None:
    wrong = inputs["hidden_states"][:2].astype(np.int32)
    assert "hidden_states" in refusal(lambda: call({"hidden_states": wrong})).what


def test_a_bundle_called_with_a_batch_outside_its_range(
    call: Callable[[dict[str, Array]], object], inputs: dict[str, Array]
) -> None:
    many = {
        name: np.repeat(array[:1], 1000, axis=0)
        for name, array in inputs.items()
        if not name.endswith("_ids")
    }
    error = refusal(lambda: call(many))
    assert "1000" in error.what
    assert "batch" in error.what


def test_a_bundle_called_with_an_unknown_argument(
    call: Callable[[dict[str, Array]], object],
) -> None:
    assert "colour" in refusal(lambda: call({"colour": np.zeros(2)})).what


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "weights.bin", "plan.yaml"])
def test_a_damaged_bundle_is_refused_by_file(name: str, flux_copy: Path) -> None:
    path = flux_copy / "bundle" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x5A
    path.write_bytes(data)
    assert name in refusal(lambda: segquant_trt.load(flux_copy / "bundle")).what
    path.write_bytes(data[: len(data) // 3])
    assert name in refusal(lambda: segquant_trt.load(flux_copy / "bundle")).what
    path.unlink()
    assert name in refusal(lambda: segquant_trt.load(flux_copy / "bundle")).what


def test_a_bundle_whose_manifest_leads_out_of_it(flux_copy: Path) -> None:
    manifest = flux_copy / "bundle" / "manifest.json"
    plain = json.loads(manifest.read_text())
    for file in plain["files"]:
        if file["name"] == "weights.bin":
            file["name"] = "../../weights.bin"
    manifest.write_text(json.dumps(sealed(plain)))
    assert "../../weights.bin" in refusal(lambda: segquant_trt.load(flux_copy / "bundle")).what


def test_a_bundle_for_another_target(flux_copy: Path) -> None:
    manifest = flux_copy / "bundle" / "manifest.json"
    plain = json.loads(manifest.read_text()) | {"target": "gpu9000"}
    manifest.write_text(json.dumps(sealed(plain)))
    assert "gpu9000" in refusal(lambda: segquant_trt.load(flux_copy / "bundle")).what


def test_a_path_without_a_bundle(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(lambda: segquant_trt.load(tmp_path)).what
