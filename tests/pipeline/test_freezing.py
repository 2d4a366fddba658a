"""Freezing a schedule from the command line: what it takes, what it says, what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import segquant_trt
from segquant_trt.cli.app import main
from segquant_trt.models.zoo import zoo_path
from segquant_trt.models.zoo_loop import ZooLoop


def test_a_denoiser_alone_cannot_be_frozen(
    flux_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(flux_copy)
    before = (flux_copy / "quantized.onnx").read_bytes()
    assert main(["rewrite", run, "--freeze-schedule", "default:4"]) != 0
    said = capsys.readouterr().err
    assert "is a denoiser without a scheduler around it" in said
    assert "compile the whole pipeline's folder" in said
    assert (flux_copy / "quantized.onnx").read_bytes() == before
    assert main(["rewrite", run, "--freeze-schedule", "20"]) != 0
    assert "allowed: SCHEDULER:STEPS" in capsys.readouterr().err
    assert main(["rewrite", run]) == 0


@pytest.mark.full
def test_a_frozen_zoo_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures are those of the bundle; `rewrite` alone remembers the schedule."""
    run = tmp_path / "run"
    result = segquant_trt.compile(
        "zoo:digits-unet", out=run, num_samples=4, preset="plain", steps=6,
        freeze_schedule="default:6,default:4",
    )  # fmt: skip
    figures = result.summary
    assert figures["sites_frozen"] == 10
    assert figures["sites_total"] == 73
    bundle = segquant_trt.load(figures["bundle"], threads=1)
    loop = ZooLoop(zoo_path("digits-unet"))
    steps = {*loop.timesteps(6), *loop.timesteps(4)}
    assert bundle.manifest.frozen is not None
    assert {*bundle.manifest.frozen.timesteps} == steps
    for count in (6, 4):
        loop.sample(bundle.run, seeds=[1, 2], steps=count)
    assert bundle.fallback_calls == 0
    images = loop.sample(bundle.run, seeds=[1, 2], steps=5).images
    assert bundle.fallback_calls > 0
    assert np.isfinite(images).all()
    with_fallback = figures["size_bytes_quantized"]
    capsys.readouterr()
    assert main(["rewrite", str(run), "--no-fallback"]) == 0
    assert "--freeze-schedule default:6,default:4" in capsys.readouterr().err
    assert not (run / "quantized.fallback.onnx").exists()
    for stage in ("build", "verify", "bench"):
        assert main([stage, str(run)]) == 0
    alone = segquant_trt.load(run / "bundle", threads=1)
    assert alone.manifest.size_bytes_quantized < with_fallback
    with pytest.raises(segquant_trt.SegQuantError, match="is not among the 9 that this bundle"):
        loop.sample(alone.run, seeds=[1], steps=5)
