"""Pictures carry what they should show, whether or not something judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segquant_trt.models.loop import Array, Denoise, Float32, OnStep
from segquant_trt.serve.pictures import picture_pairs
from segquant_trt.verify.free_running import Sampling
from segquant_trt.verify.quality import Denoisers, Verification, verify_loop

WORDS = ("a cat", "a dog", "日本")


@dataclass(frozen=True)
class Painted:
    latents: Float32
    images: Float32 | None


class Painter:
    """One step: images of the prediction."""

    def sample(
        self,
        denoise: Denoise,
        *,
        seeds: Sequence[int],
        steps: int = 1,
        guidance_scale: float | None = None,
        batch_size: int = 1,
        on_step: OnStep | None = None,
    ) -> Painted:
        noise = np.stack([np.random.default_rng(seed).random((12, 12)) for seed in seeds])
        x = noise.astype(np.float32)
        latents = denoise({"x": x, "timestep": np.zeros(len(seeds), dtype=np.float32)})
        return Painted(latents=latents, images=np.clip(latents, 0, 1))

    def condition(self, seed: int) -> str:
        return WORDS[seed % 3]

    def timesteps(self, steps: int, *, scheduler: str | None = None) -> tuple[float, ...]:
        return (0.0,)


def times(factor: float) -> Denoise:
    def denoise(inputs: Mapping[str, Array]) -> Float32:
        return np.asarray(factor * inputs["x"], dtype=np.float32)

    return denoise


def quiet(*_: Any) -> None:
    pass


def test_verified_pictures_are_captioned_without_a_judge() -> None:
    seeds = (4, 5, 7)
    request = Verification(
        seeds=seeds,
        judged_seeds=seeds,
        sampling=Sampling(steps=1, guidance_scale=None, batch_size=3),
        timestep="timestep",
        manifest_sha256="0" * 64,
    )
    denoisers = Denoisers(reference=times(1.0), quantized=times(0.9), float16=times(0.999))
    _, images = verify_loop(Painter(), denoisers, request, judge=None, on_progress=quiet)
    assert images is not None
    assert images.seeds == seeds
    assert images.labels == ("a dog", "日本", "a dog")


def test_generated_pictures_are_captioned_too() -> None:
    images = picture_pairs(
        Painter(), times(1.0), times(0.9), seeds=[3, 2], steps=1, guidance_scale=None,
        batch_size=1, on_progress=quiet,
    )  # fmt: skip
    assert images.labels == ("a cat", "日本")
