"""The stand-in for a denoiser, called as diffusers calls one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from segquant_trt.errors import SegQuantError
from segquant_trt.models import family_for
from segquant_trt.models.drop_in import DropIn
from tests.tiny_pipelines import tiny_denoiser


class Recorder:
    """A denoiser that keeps what it was given and answers with its first input, doubled."""

    def __init__(self) -> None:
        self.inputs: dict[str, npt.NDArray[np.generic]] = {}

    def __call__(self, inputs: Mapping[str, Any]) -> npt.NDArray[np.float32]:
        self.inputs = dict(inputs)
        return 2 * np.asarray(next(iter(inputs.values())), dtype=np.float32)


def _drop_in(kind: Any, recorder: Recorder, **config: Any) -> DropIn:
    model = tiny_denoiser(kind, **config)
    settings = {key: value for key, value in model.config.items() if not key.startswith("_")}
    return DropIn(recorder, family_for(type(model).__name__), settings)


def test_an_sdxl_call() -> None:
    recorder = Recorder()
    unet = _drop_in("sdxl", recorder)
    sample = torch.randn(2, 4, 8, 8, dtype=torch.float16)
    (output,) = unet(
        sample,
        torch.tensor(500),
        encoder_hidden_states=torch.randn(2, 7, 64, dtype=torch.bfloat16),
        timestep_cond=None,
        cross_attention_kwargs=None,
        added_cond_kwargs={"text_embeds": torch.randn(2, 32), "time_ids": torch.ones(2, 6)},
        return_dict=False,
    )
    assert output.dtype == torch.float16
    assert torch.equal(output, 2 * sample)
    assert {name: array.shape for name, array in recorder.inputs.items()} == {
        "sample": (2, 4, 8, 8),
        "timestep": (2,),
        "encoder_hidden_states": (2, 7, 64),
        "added_cond_kwargs.text_embeds": (2, 32),
        "added_cond_kwargs.time_ids": (2, 6),
    }
    assert all(array.dtype == np.float32 for array in recorder.inputs.values())
    assert recorder.inputs["timestep"].tolist() == [500, 500]
    assert unet.add_embedding.linear_1.in_features == 80
    assert unet(sample, 1, torch.ones(2, 7, 64), added_cond_kwargs={
        "text_embeds": torch.ones(2, 32), "time_ids": torch.ones(2, 6)
    }).sample.shape == sample.shape  # fmt: skip


def test_a_flux_call_with_batched_positions() -> None:
    recorder = Recorder()
    transformer = _drop_in("flux", recorder)
    latents = torch.randn(3, 6, 16)
    with transformer.cache_context("cond"):
        transformer(
            hidden_states=latents,
            encoder_hidden_states=torch.randn(3, 5, 32),
            pooled_projections=torch.randn(3, 32),
            timestep=torch.full((3,), 0.5),
            img_ids=torch.ones(1, 6, 3),
            txt_ids=torch.zeros(5, 3),
            guidance=torch.tensor([3.5]),
            joint_attention_kwargs={},
            return_dict=False,
        )
    assert recorder.inputs["img_ids"].shape == (6, 3)
    assert recorder.inputs["guidance"].tolist() == [3.5, 3.5, 3.5]


def test_inputs_are_copies() -> None:
    recorder = Recorder()
    unet = _drop_in("sd15", recorder)
    sample = torch.zeros(1, 4, 8, 8)
    unet(sample, 3, torch.zeros(1, 7, 32))
    sample += 1
    assert not recorder.inputs["sample"].any()


def test_what_pipelines_read() -> None:
    unet = _drop_in("sd15", Recorder())
    assert unet.config.in_channels == unet.config["in_channels"] == 4
    assert (unet.dtype, unet.device.type) == (torch.float32, "cpu")


def test_arguments_that_were_not_exported_are_refused() -> None:
    unet = _drop_in("sd15", Recorder())
    arguments = (torch.zeros(1, 4, 8, 8), 3, torch.zeros(1, 7, 32))
    with pytest.raises(SegQuantError, match=r"cross_attention_kwargs\.scale"):
        unet(*arguments, cross_attention_kwargs={"scale": 0.5})
    with pytest.raises(SegQuantError, match="mid_block_additional_residual"):
        unet(*arguments, mid_block_additional_residual=torch.zeros(1))


def test_a_missing_argument_is_named() -> None:
    flux = _drop_in("flux", Recorder())
    with pytest.raises(SegQuantError, match="'encoder_hidden_states'"):
        flux(hidden_states=torch.zeros(1, 6, 16))
