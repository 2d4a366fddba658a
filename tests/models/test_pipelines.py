"""PipelineLoop against the same pipeline run by diffusers with its own denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from segquant_trt.errors import SegQuantError
from segquant_trt.models import family_for
from segquant_trt.models.pipelines import PipelineLoop
from segquant_trt.models.prompts import read_prompts
from segquant_trt.models.source import resolve
from segquant_trt.records import ModelSpec
from tests.tiny_pipelines import TinyKind, make_tiny_pipeline, tiny_denoiser

SIZE = 32


def _spec(folder: Path) -> ModelSpec:
    source = resolve(str(folder))
    family = family_for(source.class_name)
    return ModelSpec(
        source=source.name,
        family=family.name,
        class_name=source.class_name,
        config=source.config,
        inputs=family.inputs(source.config),
        output=family.output(source.config),
        axes=family.sizes(source.config),
        timestep=family.timestep,
        prompt_inputs=family.prompt_inputs(source.config),
        opset=21,
        onnx_sha256="",
        checkpoint=(),
        validation=None,
        exporter={},
    )


def _torch_denoise(kind: TinyKind) -> Any:
    model = tiny_denoiser(kind)
    family = family_for(type(model).__name__)

    def denoise(inputs: Mapping[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.no_grad():
            output: npt.NDArray[np.float32] = model(**family.nest(tensors))[0].numpy()
            return output

    return denoise


def _by_diffusers(
    folder: Path, seed: int, *, scheduler: str | None = None, **arguments: Any
) -> npt.NDArray[np.float32]:
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    if scheduler is not None:
        kind = getattr(diffusers, scheduler)
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    images: npt.NDArray[np.float32] = pipeline(
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(seed)],
        output_type="np",
        **arguments,
    ).images
    return images


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
def test_the_loop_paints_what_diffusers_paints(kind: TinyKind, tmp_path: Path) -> None:
    folder = make_tiny_pipeline(kind, tmp_path / kind)
    loop = PipelineLoop(folder, _spec(folder), height=SIZE, width=SIZE)
    steps: list[tuple[int, int]] = []
    samples = loop.sample(
        _torch_denoise(kind),
        seeds=[4, 5, 6],
        steps=2,
        batch_size=2,
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert samples.images is not None
    assert samples.images.shape == (3, SIZE, SIZE, 3)
    assert samples.images.dtype == samples.latents.dtype == np.float32
    assert len(samples.latents) == 3
    expected = _by_diffusers(folder, 6, prompt=[read_prompts()[6].text])
    assert loop.condition(6) == loop.condition(6 + 32) == read_prompts()[6].text
    np.testing.assert_allclose(samples.images[2], expected[0], atol=1e-5)
    assert np.abs(samples.images[1] - samples.images[2]).max() > 0.05


def test_prompts_guidance_and_scheduler_reach_the_pipeline(tmp_path: Path) -> None:
    folder = make_tiny_pipeline("sd15", tmp_path / "sd15")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a cat", "negative_prompt": "a dog"}')
    loop = PipelineLoop(
        folder,
        _spec(folder),
        prompts=prompts,
        height=SIZE,
        width=SIZE,
        scheduler="EulerAncestralDiscreteScheduler",
    )
    assert loop.condition(9) == "a cat"
    images = loop.sample(_torch_denoise("sd15"), seeds=[9], steps=2, guidance_scale=3.0).images
    assert images is not None
    given: dict[str, Any] = {
        "scheduler": "EulerAncestralDiscreteScheduler",
        "prompt": "a cat",
        "negative_prompt": "a dog",
        "guidance_scale": 3.0,
    }
    np.testing.assert_allclose(images, _by_diffusers(folder, 9, **given), atol=1e-5)
    for change in ({"scheduler": None}, {"negative_prompt": ""}, {"guidance_scale": 7.5}):
        assert np.abs(images - _by_diffusers(folder, 9, **given | change)).max() > 1e-3


def test_bad_options_are_refused(tmp_path: Path) -> None:
    folder = make_tiny_pipeline("sd15", tmp_path / "sd15")
    spec = _spec(folder)
    with pytest.raises(SegQuantError, match="height 33"):
        PipelineLoop(folder, spec, height=33)
    with pytest.raises(SegQuantError, match="DreamScheduler"):
        PipelineLoop(folder, spec, scheduler="DreamScheduler")
    with pytest.raises(SegQuantError, match="0 seeds"):
        PipelineLoop(folder, spec).sample(_torch_denoise("sd15"), seeds=[])
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(SegQuantError, match="does not load"):
        PipelineLoop(folder, spec)


@pytest.mark.parametrize("device", ["bogus", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str, tmp_path: Path) -> None:
    folder = make_tiny_pipeline("flux", tmp_path / "pipe")
    with pytest.raises(SegQuantError, match=f"no usable device '{device}' here; it offers cpu"):
        PipelineLoop(folder, _spec(folder), device=device)


def test_a_truncated_part_of_the_pipeline_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_pipeline("flux", tmp_path / "pipe")
    spec = _spec(folder)
    weights = next((folder / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SegQuantError, match="does not load"):
        PipelineLoop(folder, spec)
