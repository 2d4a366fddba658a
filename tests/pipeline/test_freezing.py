"""Freezing a schedule from the command line: what it takes, what it says, what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import segquant_trt
from segquant_trt.cli.app import main
from segquant_trt.models.zoo import zoo_path
from segquant_trt.models.zoo_loop import ZooLoop
from segquant_trt.records import GraphFacts
from segquant_trt.records.codec import read_record


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


def test_a_denoiser_alone_can_be_hoisted(
    flux_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`inspect` tells what runs once per prompt; the option is remembered, and can be undone."""
    run = str(flux_copy)
    assert main(["rewrite", run, "--hoist-prompt"]) == 0
    assert "run once per prompt" in capsys.readouterr().err
    assert main(["build", run]) == 0
    assert main(["inspect", str(flux_copy / "bundle")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in ("encoder_hidden_states", "pooled_projections", "guidance"):
        assert name in said.partition("inputs of a prompt ")[2].partition("sites once")[0]
    count = len(read_record(flux_copy / "facts.yaml", GraphFacts).prompt_constant)
    assert count > 2
    assert f"sites once per prompt {count} MACs once per prompt" in said
    assert main(["rewrite", run, "--force"]) == 0
    assert "--hoist-prompt" in capsys.readouterr().err
    assert main(["rewrite", run, "--no-hoist-prompt"]) == 0
    assert not (flux_copy / "quantized.prompt.onnx").exists()
    assert main(["build", run]) == 0
    assert not (flux_copy / "bundle" / "prompt.onnx").exists()


@pytest.mark.full
def test_a_hoisted_zoo_model(tmp_path: Path) -> None:
    """Both parts out of the loop: exact temporal features, one prompt run for all steps."""
    result = segquant_trt.compile(
        "zoo:digits-mmdit", out=tmp_path / "run", num_samples=4, preset="plain", steps=6,
        freeze_schedule="default:6", hoist_prompt=True, quantize_all=True,
    )  # fmt: skip
    figures = result.summary
    assert (figures["sites_frozen"], figures["sites_hoisted"]) == (2, 16)
    assert figures["macs_hoisted_share"] > 0.04
    quality = json.loads((tmp_path / "run" / "quality.json").read_text())
    assert {entry["held"] for entry in quality["temporal"]} == {"once per prompt"}
    assert all(entry["relative_error_worst"] == 0.0 for entry in quality["temporal"])
    bundle = segquant_trt.load(figures["bundle"], threads=1)
    loop = ZooLoop(zoo_path("digits-mmdit"))
    latents = [loop.sample(bundle.run, seeds=[seed], steps=6).latents for seed in (1, 2)]
    assert (bundle.prompt_runs, bundle.fallback_calls) == (2, 0)
    again = [loop.sample(bundle.run, seeds=[seed], steps=6).latents for seed in (2, 1)]
    assert bundle.prompt_runs == 2
    np.testing.assert_array_equal(again[::-1], latents)
    loop.sample(bundle.run, seeds=[1], steps=5)
    assert bundle.fallback_calls > 0


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
