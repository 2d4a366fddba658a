"""A loaded bundle in the place of a pipeline's denoiser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import segquant_trt
from segquant_trt.errors import SegQuantError
from segquant_trt.models import family_for
from tests.tiny_pipelines import make_tiny_pipeline


def test_a_call_in_torch_is_the_run_in_numpy(compiled_flux: Path) -> None:
    import torch

    bundle = segquant_trt.load(compiled_flux / "bundle", threads=1)
    family = family_for(bundle.manifest.class_name)
    lengths = {"batch": 2, "tokens": 6, "text": 5}
    flat = family.example_inputs(bundle.manifest.config, lengths, seed=3)
    wanted = bundle.run(flat)
    tensors = {name: torch.from_numpy(array) for name, array in flat.items()}
    (found,) = bundle(**family.nest(tensors), return_dict=False)
    np.testing.assert_array_equal(found.numpy(), wanted)
    np.testing.assert_array_equal(bundle(**family.nest(tensors)).sample.numpy(), wanted)
    assert bundle.config.in_channels == bundle.manifest.config["in_channels"]
    assert bundle.dtype == torch.float32
    with pytest.raises(SegQuantError, match="'controlnet_block_samples'"):
        bundle(**family.nest(tensors), controlnet_block_samples=found)


@pytest.mark.full
def test_a_pipeline_makes_nearly_the_same_image(compiled_flux: Path, tmp_path: Path) -> None:
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(make_tiny_pipeline("flux", tmp_path / "pipe"))
    pipe.set_progress_bar_config(disable=True)

    def image() -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        return pipe(
            "a digit", num_inference_steps=3, height=32, width=32, generator=generator,
            output_type="np",
        ).images  # fmt: skip

    wanted = image()
    pipe.transformer = segquant_trt.load(compiled_flux / "bundle", threads=1)
    found = image()
    assert np.abs(found - wanted).mean() < 0.05
    assert not np.array_equal(found, wanted)
