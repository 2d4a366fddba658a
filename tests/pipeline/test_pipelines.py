"""Whole diffusers pipelines with tiny random weights, from folder to bundle and back into place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import segquant_trt
from segquant_trt.cli.app import main
from segquant_trt.errors import SegQuantError
from segquant_trt.models.saved import saved_source
from segquant_trt.records.stage import CompileResult
from tests.shared import LazyFolders
from tests.tiny_pipelines import TINY_KINDS, TinyKind, make_tiny_pipeline, tiny_denoiser

REPEATED = (
    "model.onnx", "facts.yaml", "calibration.safetensors", "plan.yaml", "quantized.onnx",
    "quantized.weights", "bundle/manifest.json", "bundle/weights.bin", "quality.json",
)  # fmt: skip


def compiled(model: Path, run: Path) -> CompileResult:
    return segquant_trt.compile(
        str(model), out=run, height=32, width=32, num_samples=2, steps=2, guidance_scale=2.0
    )


@pytest.mark.full
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_a_pipeline_compiles_and_takes_its_bundle(kind: TinyKind, tmp_path: Path) -> None:
    import diffusers

    folder = make_tiny_pipeline(kind, tmp_path / kind)
    result = compiled(folder, tmp_path / "run")
    figures = result.summary
    assert figures["sites_integer"] > figures["sites_total"] / 2
    assert figures["macs_integer_share"] > 0.5
    assert figures["latent_sqnr_db"] is not None
    assert figures["psnr_db"] is not None
    assert {"classifier_accuracy", "frechet_distance"} <= set(figures["not_applicable"])
    assert figures["size_bytes_quantized"] < figures["size_bytes_float"]
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    component = "unet" if hasattr(pipe, "unet") else "transformer"
    setattr(pipe, component, segquant_trt.load(result.summary["bundle"]))
    image = pipe("a boat", height=32, width=32, num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3)
    assert np.isfinite(image).all()


@pytest.mark.full
def test_two_compilations_give_the_same_bytes(tmp_path: Path) -> None:
    folder = make_tiny_pipeline("sd15", tmp_path / "sd15")
    first, second = (compiled(folder, tmp_path / name).run for name in ("one", "two"))
    different = [
        name for name in REPEATED if (first / name).read_bytes() != (second / name).read_bytes()
    ]
    assert not different


def test_a_materialized_export_stands_alone(
    tiny_denoisers: LazyFolders, flux_copy: Path, tmp_path: Path
) -> None:
    import onnx

    arguments = ["export", str(tiny_denoisers["flux"]), "-o", str(flux_copy)]
    assert main([*arguments, "--materialize", str(tmp_path / "copy")]) == 0
    copy = tmp_path / "copy" / "model.onnx"
    onnx.checker.check_model(str(copy), full_check=True)
    model = onnx.load(str(copy))
    weight = next(t for t in model.graph.initializer if t.name == "proj_out.weight")
    assert np.abs(onnx.numpy_helper.to_array(weight)).max() > 0


def test_a_loaded_denoiser_is_saved_once_and_compiled(flux_inputs: Path, tmp_path: Path) -> None:
    model = tiny_denoiser("flux")
    folder = saved_source(model, tmp_path / "source")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert saved_source(model, tmp_path / "source") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert saved_source(tiny_denoiser("flux", seed=1), tmp_path / "source") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} != before
    result = segquant_trt.compile(model, out=tmp_path / "run", inputs=flux_inputs)
    assert result.summary["sites_integer"] > 0
    with pytest.raises(SegQuantError, match="cannot take a int"):
        segquant_trt.compile(7, out=tmp_path / "other")
