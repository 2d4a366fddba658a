"""The zoo's denoising loop: diffusers' schedulers around any executor of the denoiser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loop import Array, Denoise, Float32, OnStep
from segquant_trt.models.schedulers import compatible_scheduler

if TYPE_CHECKING:
    import torch

UNET = "UNet2DConditionModel"
SD3 = "SD3Transformer2DModel"
FLUX = "FluxTransformer2DModel"
GUIDANCE_SCALE = 3.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooSamples:
    """Final latents float32[N, ...], images float32[N, 16, 16] in 0..1, and labels."""

    latents: Float32
    images: Float32
    labels: tuple[int, ...]


class ZooLoop:
    """Classifier-free guided sampling of one zoo model (Ho and Salimans, 2207.12598, equation 6).

    Args:
        folder: a folder that `zoo_path` returned.

    Raises:
        SegQuantError: the folder is not a zoo model.
    """

    num_classes = 10

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.class_name, self.component = denoiser_of(folder)
        self._prompts = _load_conditioning(folder)
        self.latent_shape = (1, 16, 16) if self.class_name == UNET else (4, 8, 8)

    def sample(
        self,
        denoise: Denoise,
        *,
        seeds: Sequence[int],
        labels: Sequence[int] | None = None,
        steps: int = 20,
        guidance_scale: float | None = GUIDANCE_SCALE,
        batch_size: int = 50,
        on_step: OnStep | None = None,
    ) -> ZooSamples:
        """Denoise from `seeds`, at most `batch_size` of them at once.

        `denoise` is called once per step and chunk of n seeds with inputs of batch 2n, the
        unconditional half first. A seed's noise depends on that seed alone; its label is
        `seed % 10` unless `labels` says otherwise.

        Raises:
            SegQuantError: no seeds, an unequal number of labels, a label that is no class, or a
                prediction of another shape than the latents.
        """
        wanted = tuple(seed % self.num_classes for seed in seeds) if labels is None else labels
        scale = GUIDANCE_SCALE if guidance_scale is None else guidance_scale
        _check_request(seeds, wanted, self.num_classes, steps, batch_size)
        chunks = [slice(at, at + batch_size) for at in range(0, len(seeds), batch_size)]
        finished: list[Float32] = []
        for index, chunk in enumerate(chunks):
            trajectory = _Trajectory(self, seeds[chunk], wanted[chunk], steps)
            for step in range(steps):
                trajectory.advance(denoise, step, scale)
                if on_step is not None:
                    on_step(index * steps + step + 1, len(chunks) * steps)
            finished.append(trajectory.latents.numpy())
        latents = np.concatenate(finished)
        return ZooSamples(latents=latents, images=_decode(latents), labels=tuple(wanted))

    def condition(self, seed: int) -> str:
        """The digit that a seed's sample is to show."""
        return str(seed % self.num_classes)

    def scheduler(self) -> Any:
        """A fresh scheduler as the model's scheduler folder describes it."""
        import diffusers

        config = json.loads((self.folder / "scheduler/scheduler_config.json").read_text())
        return getattr(diffusers, config["_class_name"]).from_config(config)

    def timesteps(self, steps: int, *, scheduler: str | None = None) -> tuple[float, ...]:
        """The values that the denoiser's timestep input takes, in the order of the calls.

        Raises:
            SegQuantError: `scheduler` is no class that fits the model.
        """
        own = self.scheduler()
        found = own if scheduler is None else compatible_scheduler(own, scheduler, self.folder.name)
        found.set_timesteps(steps)
        return tuple(self._seen(float(time)) for time in found.timesteps)

    def inputs(self, latents: Float32, timestep: float, labels: Sequence[int]) -> dict[str, Array]:
        """The denoiser's `forward` arguments for latents float32[n, ...], as batch 2n."""
        rows = [self.num_classes] * len(labels) + list(labels)
        doubled = np.concatenate([latents, latents])
        text = self._prompts["tokens"][rows]
        times = np.full(len(rows), self._seen(timestep), dtype=np.float32)
        if self.class_name == UNET:
            return {"sample": doubled, "timestep": times, "encoder_hidden_states": text}
        pooled = self._prompts["pooled"][rows]
        if self.class_name == SD3:
            return {
                "hidden_states": doubled,
                "encoder_hidden_states": text,
                "pooled_projections": pooled,
                "timestep": times,
            }
        return {
            "hidden_states": pack(doubled),
            "encoder_hidden_states": text,
            "pooled_projections": pooled,
            "timestep": times,
            "img_ids": _positions(latents.shape[2] // 2, latents.shape[3] // 2),
            "txt_ids": np.zeros((text.shape[1], 3), dtype=np.float32),
        }

    def _seen(self, timestep: float) -> float:
        """The scheduler's timestep as the denoiser takes it, rounded to float32."""
        time = np.float32(timestep)
        return float(time / np.float32(1000.0) if self.class_name == FLUX else time)


class _Trajectory:
    """The latents of one chunk of seeds on their way, torch float32[n, ...]."""

    def __init__(
        self, loop: ZooLoop, seeds: Sequence[int], labels: Sequence[int], steps: int
    ) -> None:
        self.loop, self.labels = loop, labels
        self.scheduler = loop.scheduler()
        self.scheduler.set_timesteps(steps)
        self.latents = _noise(seeds, loop.latent_shape)

    def advance(self, denoise: Denoise, step: int, guidance_scale: float) -> None:
        """One call of the denoiser and one step of the scheduler."""
        import torch

        time = self.scheduler.timesteps[step]
        inputs = self.loop.inputs(self.latents.numpy(), float(time), self.labels)
        predicted = np.asarray(denoise(inputs), dtype=np.float32)
        if self.loop.class_name == FLUX:
            predicted = unpack(predicted, self.loop.latent_shape)
        expected = (2 * len(self.labels), *self.loop.latent_shape)
        if predicted.shape != expected:
            raise SegQuantError(
                f"the denoiser returned shape {predicted.shape}, expected {expected}",
                hint="check that it was compiled from the same zoo model",
            )
        unconditional, conditional = np.split(predicted, 2)
        guided = unconditional + np.float32(guidance_scale) * (conditional - unconditional)
        moved = self.scheduler.step(torch.from_numpy(guided), time, self.latents)
        self.latents = moved.prev_sample.contiguous()


def denoiser_of(folder: Path) -> tuple[str, str]:
    """The denoiser's class name and its component folder, from `model_index.json`.

    Raises:
        SegQuantError: there is no readable index, or no known denoiser in it.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        for component in ("unet", "transformer"):
            if component in index and index[component][1] in (UNET, SD3, FLUX):
                return str(index[component][1]), component
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise _not_a_zoo_model(folder) from error
    raise _not_a_zoo_model(folder)


def pack(latents: Float32) -> Float32:
    """FLUX's 2x2 packing: float32[N, C, H, W] to tokens float32[N, H/2 * W/2, 4C]."""
    n, channels, height, width = latents.shape
    cells = latents.reshape(n, channels, height // 2, 2, width // 2, 2)
    tokens = cells.transpose(0, 2, 4, 1, 3, 5).reshape(n, -1, 4 * channels)
    return np.ascontiguousarray(tokens)


def unpack(tokens: Float32, latent_shape: tuple[int, int, int]) -> Float32:
    """The inverse of `pack`: float32[N, T, 4C] to float32[N, *latent_shape]."""
    channels, height, width = latent_shape
    cells = tokens.reshape(len(tokens), height // 2, width // 2, channels, 2, 2)
    return np.ascontiguousarray(
        cells.transpose(0, 3, 1, 4, 2, 5).reshape(len(tokens), channels, height, width)
    )


def _decode(latents: Float32) -> Float32:
    """Latents to images float32[N, 16, 16] in 0..1; four channels are 2x2 cells of pixels."""
    n, channels, height, width = latents.shape
    if channels == 4:
        cells = latents.reshape(n, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
        latents = cells.reshape(n, 1, 2 * height, 2 * width)
    images: Float32 = np.clip((latents[:, 0] + np.float32(1.0)) / np.float32(2.0), 0.0, 1.0)
    return images


def _noise(seeds: Sequence[int], latent_shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.stack(
        [torch.randn(latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    )


def _positions(rows: int, columns: int) -> Float32:
    """FLUX's `img_ids` float32[rows * columns, 3]: zero, row, column."""
    ids = np.zeros((rows * columns, 3), dtype=np.float32)
    ids[:, 1], ids[:, 2] = np.divmod(np.arange(rows * columns), columns)
    return ids


def _load_conditioning(folder: Path) -> dict[str, Float32]:
    """Prompts per class, the null prompt last: tokens float32[11, T, D], pooled float32[11, P]."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        table: dict[str, Float32] = load_file(folder / "conditioning.safetensors")
    except (OSError, SafetensorError) as error:
        raise _not_a_zoo_model(folder) from error
    if "tokens" not in table:
        raise _not_a_zoo_model(folder)
    return table


def _check_request(
    seeds: Sequence[int], labels: Sequence[int], classes: int, steps: int, batch_size: int
) -> None:
    hint = "give at least one seed, and one label in 0..9 per seed"
    if not seeds or len(labels) != len(seeds):
        raise SegQuantError(f"{len(seeds)} seeds and {len(labels)} labels", hint=hint)
    wrong = [label for label in labels if not 0 <= label < classes]
    if wrong:
        raise SegQuantError(f"label {wrong[0]} is not a class (0..{classes - 1})", hint=hint)
    if steps < 1 or batch_size < 1:
        raise SegQuantError(
            f"steps {steps} and batch size {batch_size} must be at least 1",
            hint="20 steps and batches of 50 are the defaults",
        )


def _not_a_zoo_model(folder: Path) -> SegQuantError:
    return SegQuantError(
        f"{folder} is not a complete zoo model (model_index.json with a denoiser, "
        "conditioning.safetensors)",
        hint="use a folder that zoo_path() returned; reinstall the package if that one is broken",
    )
