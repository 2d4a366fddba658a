"""The denoising loop of a diffusers pipeline on disk, around any executor of its denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.models import family_for
from segquant_trt.models.drop_in import DropIn
from segquant_trt.models.family import Family
from segquant_trt.models.loop import Array, Denoise, Float32, OnStep
from segquant_trt.models.prompts import Prompt, read_prompts
from segquant_trt.models.schedulers import compatible_scheduler
from segquant_trt.records import ModelSpec

_SAFETY = ("safety_checker", "feature_extractor")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSamples:
    """Final latents as the pipeline holds them (FLUX: packed), images float32[N, H, W, 3]."""

    latents: Float32
    images: Float32 | None


class PipelineLoop:
    """Text-to-image sampling with a diffusers pipeline whose denoiser is not loaded.

    Args:
        folder: the pipeline's folder (model_index.json).
        spec: its exported denoiser.
        prompts: a prompts file; the 32 that ship with the package when None.
        height, width: of the images in pixels; the model's own when None.
        scheduler: the name of a diffusers scheduler class to use instead of the pipeline's.
        device, dtype: where and in what the text encoders and the VAE run.

    Raises:
        SegQuantError: the pipeline does not load, or an option does not fit it.
    """

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        *,
        prompts: Path | None = None,
        height: int | None = None,
        width: int | None = None,
        scheduler: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self._family = family_for(spec.class_name)
        self._config = spec.config
        self._timestep, self._output = spec.timestep, spec.output
        self._prompts = read_prompts(prompts)
        self._pipeline = _load(folder, self._family, spec.config, device=device, dtype=dtype)
        self._size = _pixels(self._pipeline, spec, height=height, width=width)
        if scheduler is not None:
            self._pipeline.scheduler = self._other(scheduler)

    def sample(
        self,
        denoise: Denoise,
        *,
        seeds: Sequence[int],
        steps: int = 20,
        guidance_scale: float | None = None,
        batch_size: int = 1,
        on_step: OnStep | None = None,
    ) -> PipelineSamples:
        """Denoise from `seeds`, at most `batch_size` of them at once.

        A seed's noise depends on that seed alone; its prompt is number `seed` modulo the number
        of prompts. `guidance_scale` None means the pipeline's own default.

        Raises:
            SegQuantError: no seeds, or the pipeline refuses an option.
        """
        if not seeds or steps < 1 or batch_size < 1:
            raise SegQuantError(
                f"{len(seeds)} seeds, {steps} steps, batch size {batch_size}: each must be 1 or "
                "more",
                hint="give at least one seed and one step",
            )
        self._take(denoise)
        chunks = [seeds[at : at + batch_size] for at in range(0, len(seeds), batch_size)]
        latents, images = [], []
        for index, chunk in enumerate(chunks):
            watch = _Watch(on_step, first=index * steps, total=len(chunks) * steps)
            images.append(self._run(chunk, steps, guidance_scale, watch))
            latents.append(watch.latents)
        return PipelineSamples(
            latents=np.concatenate(latents), images=np.concatenate(images).astype(np.float32)
        )

    def condition(self, seed: int) -> str:
        """The prompt of a seed."""
        return self._prompt(seed).text

    def timesteps(self, steps: int, *, scheduler: str | None = None) -> tuple[float, ...]:
        """The values that the denoiser's timestep input takes, in the order of the calls.

        The pipeline is run with a denoiser that only listens: shifts by image size, second calls
        per step and roundings are the pipeline's own.

        Raises:
            SegQuantError: `scheduler` is no class that fits, or the pipeline refuses to run.
        """
        if scheduler is not None:
            self._pipeline.scheduler = self._other(scheduler)
        heard: list[float] = []

        def listen(inputs: Mapping[str, Array]) -> Float32:
            if self._timestep is not None:
                heard.extend(float(value) for value in inputs[self._timestep].reshape(-1))
            latents = next(iter(inputs.values())).shape
            shape = [
                length if isinstance(axis, str) else axis
                for axis, length in zip(self._output.shape, latents, strict=True)
            ]
            return np.zeros(shape, dtype=np.float32)

        self._take(listen)
        self._run([0], steps, None, _Watch(None, first=0, total=steps), output_type="latent")
        return tuple(heard)

    def _prompt(self, seed: int) -> Prompt:
        return self._prompts[seed % len(self._prompts)]

    def _take(self, denoise: Denoise) -> None:
        setattr(self._pipeline, self._family.component, DropIn(denoise, self._family, self._config))

    def _other(self, scheduler: str) -> Any:
        subject = type(self._pipeline).__name__
        return compatible_scheduler(self._pipeline.scheduler, scheduler, subject)

    def _run(
        self,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float | None,
        watch: _Watch,
        *,
        output_type: str = "np",
    ) -> Array:
        import torch

        prompts = [self._prompt(seed) for seed in seeds]
        arguments: dict[str, Any] = {
            "prompt": [prompt.text for prompt in prompts],
            **_negatives(prompts),
            **self._size,
            "num_inference_steps": steps,
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": output_type,
            "callback_on_step_end": watch,
        }
        if guidance_scale is not None:
            arguments["guidance_scale"] = guidance_scale
        try:
            images: Array = self._pipeline(**arguments).images
        except (ValueError, TypeError) as error:
            raise SegQuantError(
                f"{type(self._pipeline).__name__} refuses to run: {error}",
                hint="check height, width, steps, scheduler and the prompts file",
            ) from error
        return images


class _Watch:
    """A pipeline's step callback: counts steps, and keeps the latents of the last one."""

    def __init__(self, on_step: OnStep | None, *, first: int, total: int) -> None:
        self._on_step = on_step
        self._done, self._total = first, total
        self.latents: Float32 = np.empty(0, dtype=np.float32)

    def __call__(
        self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]
    ) -> dict[str, Any]:
        self.latents = values["latents"].detach().float().cpu().numpy()
        self._done += 1
        if self._on_step is not None:
            self._on_step(min(self._done, self._total), self._total)
        return values


def _load(
    folder: Path, family: Family, config: Mapping[str, Any], *, device: str, dtype: str
) -> Any:
    """The pipeline around a placeholder: the real denoiser's weights stay on disk."""
    import diffusers
    import torch
    from safetensors import SafetensorError

    _check_device(device)
    diffusers.utils.logging.disable_progress_bar()
    # Without the safety checker: a blackened picture would count as quantisation error.
    try:
        index = diffusers.DiffusionPipeline.load_config(folder, local_files_only=True)
        absent = dict.fromkeys(name for name in (family.component, *_SAFETY) if name in index)
        loaded = diffusers.DiffusionPipeline.from_pretrained(
            folder, torch_dtype=getattr(torch, dtype), local_files_only=True, **absent
        )
    except (
        *(OSError, ValueError, ImportError, AttributeError, TypeError, RuntimeError),
        SafetensorError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise SegQuantError(
            f"the pipeline in {folder} does not load: {reason}",
            hint="check that the folder is complete, or compile its denoiser folder alone",
        ) from error
    known = inspect.signature(type(loaded).__init__).parameters
    parts = dict(loaded.config) | loaded.components
    parts[family.component] = DropIn(_unset, family, config)
    parts["requires_safety_checker"] = False
    # Constructed anew: sizes such as SD3's patch size are read from the denoiser only then.
    pipeline = type(loaded)(**{name: part for name, part in parts.items() if name in known})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _check_device(device: str) -> None:
    import torch

    try:
        # Back to the CPU as well: "meta" takes tensors and never gives values.
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        offered = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        offered += ["mps"] if torch.backends.mps.is_available() else []
        raise SegQuantError(
            f"torch has no usable device '{device}' here; it offers {', '.join(offered)}",
            hint="choose one of these, or install a torch that is built for this machine's device",
        ) from error


def _unset(inputs: Mapping[str, Array]) -> Float32:
    raise AssertionError("a pipeline was run outside of sample()")


def _pixels(
    pipeline: Any, spec: ModelSpec, *, height: int | None, width: int | None
) -> dict[str, int]:
    """Image height and width where they are known: given, or the export's typical latents."""
    scale = pipeline.vae_scale_factor
    typical = {axis.name: axis.typical * scale for axis in spec.axes}
    chosen = {
        "height": height if height is not None else typical.get("height"),
        "width": width if width is not None else typical.get("width"),
    }
    for axis in spec.axes:
        pixels = chosen.get(axis.name)
        if pixels is None:
            continue
        low, high, unit = (scale * n for n in (axis.minimum, axis.maximum, axis.multiple))
        if not low <= pixels <= high or pixels % unit:
            raise SegQuantError(
                f"{axis.name} {pixels} does not fit this model; allowed: {low} to {high} pixels "
                f"in steps of {unit}",
                hint=f"choose another --{axis.name}",
            )
    return {name: pixels for name, pixels in chosen.items() if pixels is not None}


def _negatives(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    negatives = [prompt.negative for prompt in prompts]
    return {"negative_prompt": negatives} if any(negatives) else {}
