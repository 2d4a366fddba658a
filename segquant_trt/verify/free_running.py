"""Free-running comparison: each denoiser follows its own trajectory from the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segquant_trt.models.loop import Denoise, DenoisingLoop, Float32
from segquant_trt.verify.figures import frechet_distance, psnr_db, sqnr_db, ssim

Float64 = npt.NDArray[np.float64]
OnStep = Callable[[int, int], None]


class Judge(Protocol):
    """A classifier that knows what the images should show."""

    @property
    def reference(self) -> tuple[Float64, Float64]:
        """Mean float64[F] and covariance float64[F, F] of its features on real images."""

    def predict(self, images: Float32) -> tuple[Sequence[int], Float32]:
        """Class and features float32[N, F] of every image."""

    def wanted(self, seed: int) -> int:
        """The class that the loop conditions on for this seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Latents float32[N, ...] and images (or None) of `seeds`."""

    seeds: tuple[int, ...]
    latents: Float32
    images: Float32 | None

    def first(self, count: int) -> Sampled:
        """The first `count` samples."""
        return Sampled(
            seeds=self.seeds[:count],
            latents=self.latents[:count],
            images=None if self.images is None else self.images[:count],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the loop is run. `batch_size` counts seeds; guidance doubles it."""

    steps: int
    guidance_scale: float | None
    batch_size: int


def sample(
    loop: DenoisingLoop,
    denoise: Denoise,
    seeds: Sequence[int],
    sampling: Sampling,
    on_step: OnStep | None = None,
) -> Sampled:
    """Run the loop with `denoise` from `seeds`."""
    samples = loop.sample(
        denoise,
        seeds=seeds,
        steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        batch_size=sampling.batch_size,
        on_step=on_step,
    )
    return Sampled(seeds=tuple(seeds), latents=samples.latents, images=samples.images)


def latent_sqnr_db(reference: Sampled, other: Sampled) -> float:
    """Mean over seeds of the final latent's SQNR in dB."""
    return float(np.mean(sqnr_db(reference.latents, other.latents)))


def latent_sqnr_db_stderr(reference: Sampled, other: Sampled) -> float | None:
    """Standard error of that mean; None for a single seed."""
    decibels = sqnr_db(reference.latents, other.latents)
    return float(np.std(decibels, ddof=1) / len(decibels) ** 0.5) if len(decibels) > 1 else None


def image_figures(reference: Sampled, other: Sampled) -> dict[str, float]:
    """`psnr_db` and `ssim` of the images; nothing when the loop decodes none."""
    if reference.images is None or other.images is None:
        return {}
    return {
        "psnr_db": psnr_db(reference.images, other.images),
        "ssim": ssim(reference.images, other.images),
    }


def judged(sampled: Sampled, judge: Judge, *, suffix: str) -> dict[str, float]:
    """Classifier accuracy, and Fréchet distance to the real images' features."""
    assert sampled.images is not None
    classes, features = judge.predict(sampled.images)
    wanted = [judge.wanted(seed) for seed in sampled.seeds]
    accuracy = float(np.mean(np.asarray(classes) == np.asarray(wanted)))
    return {
        f"classifier_accuracy{suffix}": accuracy,
        f"frechet_distance{suffix}": frechet_distance(features, *judge.reference),
    }
