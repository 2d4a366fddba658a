"""The seam between a denoising loop and whatever executes the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]
Float32: TypeAlias = npt.NDArray[np.float32]

Denoise: TypeAlias = Callable[[Mapping[str, Array]], Float32]
"""Flat named inputs of the denoiser's `forward` -> float32 prediction, batch first."""

OnStep: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


class Samples(Protocol):
    """What a loop returns: final latents float32[N, ...], and images in 0..1 if it decodes."""

    @property
    def latents(self) -> Float32:
        """Final latents, float32[N, ...]."""

    @property
    def images(self) -> Float32 | None:
        """float32[N, H, W] or [N, H, W, 3] in 0..1."""


class DenoisingLoop(Protocol):
    """A zoo model or a diffusers pipeline: samples with any denoiser."""

    def sample(
        self,
        denoise: Denoise,
        *,
        seeds: Sequence[int],
        steps: int = ...,
        guidance_scale: float | None = ...,
        batch_size: int = ...,
        on_step: OnStep | None = ...,
    ) -> Samples:
        """Denoise from `seeds`, calling `denoise` once per step and chunk of seeds.

        A seed's noise and condition depend on that seed alone.
        """

    def condition(self, seed: int) -> str:
        """What the sample of a seed is to show: its prompt, or its class."""

    def timesteps(self, steps: int, *, scheduler: str | None = None) -> tuple[float, ...]:
        """The values that the denoiser's timestep input takes, in the order of the calls.

        `scheduler` is a class of diffusers in place of the loop's own.
        """
