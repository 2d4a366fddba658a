"""What each denoiser learns to predict, and with which scheduler it is sampled."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "digits-unet": (
        "DDIMScheduler",
        {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.02,
            "prediction_type": "epsilon",
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        },
    ),
    "digits-mmdit": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.5}),
    "digits-flux": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.5}),
}


def scheduler(name: str) -> Any:
    """The diffusers scheduler that ships with the model."""
    import diffusers

    class_name, options = SCHEDULERS[name]
    return getattr(diffusers, class_name)(**options)


class Objective:
    """The mean squared error of one denoiser on one batch of images float32[B, 1, 16, 16]."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scheduler = scheduler(name)

    def __call__(
        self,
        model: nn.Module,
        prompt: tuple[torch.Tensor, torch.Tensor],
        images: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        pixels = 2.0 * images - 1.0
        if self.name == "digits-unet":
            return self._noise_prediction(model, prompt[0], pixels, generator)
        return self._flow_matching(model, prompt, F.pixel_unshuffle(pixels, 2), generator)

    def _noise_prediction(
        self, model: nn.Module, tokens: torch.Tensor, clean: torch.Tensor, gen: torch.Generator
    ) -> torch.Tensor:
        noise = torch.randn(clean.shape, generator=gen)
        steps = torch.randint(0, 1000, (len(clean),), generator=gen)
        noisy = self.scheduler.add_noise(clean, noise, steps)
        return F.mse_loss(model(noisy, steps, tokens).sample, noise)

    def _flow_matching(
        self,
        model: nn.Module,
        prompt: tuple[torch.Tensor, torch.Tensor],
        clean: torch.Tensor,
        gen: torch.Generator,
    ) -> torch.Tensor:
        """Rectified flow with logit-normal times (Esser et al., 2403.03206, equation 19)."""
        noise = torch.randn(clean.shape, generator=gen)
        sigma = torch.sigmoid(torch.randn(len(clean), generator=gen))
        weight = sigma[:, None, None, None]
        noisy, velocity = (1.0 - weight) * clean + weight * noise, noise - clean
        tokens, pooled = prompt
        if self.name == "digits-mmdit":
            output = model(
                noisy,
                timestep=1000.0 * sigma,
                encoder_hidden_states=tokens,
                pooled_projections=pooled,
            ).sample
            return F.mse_loss(output, velocity)
        output = model(
            pack(noisy),
            timestep=sigma,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            txt_ids=torch.zeros(tokens.shape[1], 3),
            img_ids=image_ids(4, 4),
        ).sample
        return F.mse_loss(output, pack(velocity))


def pack(latents: torch.Tensor) -> torch.Tensor:
    """FLUX's 2x2 packing: float32[B, 4, 8, 8] to tokens float32[B, 16, 16]."""
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def image_ids(height: int, width: int) -> torch.Tensor:
    """FLUX's image positions float32[height * width, 3]: zero, row, column."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1)
    return ids.reshape(-1, 3).to(torch.float32)
