"""Assemble `quality.json`: every figure of a bundle against its float model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segquant_trt.models.loop import Array, Denoise, DenoisingLoop
from segquant_trt.records import Quality, SiteError, StepFigure
from segquant_trt.records.images import ReportImages
from segquant_trt.verify.free_running import (
    Judge,
    Sampled,
    Sampling,
    image_figures,
    judged,
    latent_sqnr_db,
    sample,
)
from segquant_trt.verify.teacher_forced import TeacherForced

_PICTURES = 20
_TRAJECTORY_FIGURES = ("latent_sqnr_db", "latent_sqnr_db_float16")
_IMAGE_FIGURES = ("psnr_db", "ssim")
_JUDGE_FIGURES = (
    "classifier_accuracy",
    "classifier_accuracy_float",
    "frechet_distance",
    "frechet_distance_float",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoisers:
    """The three denoisers that are compared."""

    reference: Denoise
    quantized: Denoise
    float16: Denoise


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What to run. `seeds` are compared; `judged_seeds` (a superset, in order) are classified."""

    seeds: tuple[int, ...]
    judged_seeds: tuple[int, ...]
    sampling: Sampling
    timestep: str | None
    manifest_sha256: str


def verify_loop(
    loop: DenoisingLoop,
    denoisers: Denoisers,
    request: Verification,
    *,
    judge: Judge | None,
    on_progress: Callable[[str, int, int], None],
) -> tuple[Quality, ReportImages | None]:
    """Figures along denoising trajectories, teacher-forced and free-running.

    The teacher-forced pass is the float trajectory itself, so it costs one run, not two.
    """

    def run(label: str, denoise: Denoise, seeds: tuple[int, ...]) -> Sampled:
        return sample(
            loop,
            denoise,
            seeds,
            request.sampling,
            lambda done, total: on_progress(label, done, total),
        )

    count = len(request.seeds)
    forced = TeacherForced(
        denoisers.reference, denoisers.quantized, denoisers.float16, timestep=request.timestep
    )
    reference = run("float trajectories", forced, request.seeds)
    half = run("float16 trajectories", denoisers.float16, request.seeds)
    more = request.judged_seeds if judge is not None else request.seeds
    quantized = run("quantised trajectories", denoisers.quantized, more)
    psnr, ssim = image_figures(reference, quantized.first(count))
    accuracy, frechet, accuracy_float, frechet_float = None, None, None, None
    if judge is not None:
        rest = run("float images", denoisers.reference, more[count:])
        accuracy, frechet = judged(quantized, judge)
        accuracy_float, frechet_float = judged(_joined(reference, rest), judge)
    quality = _quality(
        request,
        forced.figures(),
        samples=count,
        latent_sqnr_db=latent_sqnr_db(reference, quantized.first(count)),
        latent_sqnr_db_float16=latent_sqnr_db(reference, half),
        psnr_db=psnr,
        ssim=ssim,
        classifier_accuracy=accuracy,
        classifier_accuracy_float=accuracy_float,
        frechet_distance=frechet,
        frechet_distance_float=frechet_float,
        scheduler_steps=request.sampling.steps,
        guidance_scale=request.sampling.guidance_scale,
    )
    return quality, _pictures(reference, quantized, judge)


def verify_inputs(
    batches: Iterable[Mapping[str, Array]], denoisers: Denoisers, request: Verification
) -> Quality:
    """Teacher-forced figures on recorded inputs: for a denoiser without its pipeline."""
    forced = TeacherForced(
        denoisers.reference, denoisers.quantized, denoisers.float16, timestep=request.timestep
    )
    samples = sum(len(forced(inputs)) for inputs in batches)
    return _quality(
        request,
        forced.figures(),
        samples=samples,
        latent_sqnr_db=None,
        latent_sqnr_db_float16=None,
        psnr_db=None,
        ssim=None,
        classifier_accuracy=None,
        classifier_accuracy_float=None,
        frechet_distance=None,
        frechet_distance_float=None,
        scheduler_steps=None,
        guidance_scale=None,
    )


def _quality(
    request: Verification,
    steps: tuple[StepFigure, ...],
    *,
    samples: int,
    scheduler_steps: int | None,
    guidance_scale: float | None,
    site_errors: tuple[SiteError, ...] = (),
    **figures: float | None,
) -> Quality:
    decibels = [step.sqnr_db for step in steps]
    named = (*_TRAJECTORY_FIGURES, *_IMAGE_FIGURES, *_JUDGE_FIGURES)
    return Quality(
        bundle_manifest_sha256=request.manifest_sha256,
        sqnr_db_mean=float(np.mean(decibels)),
        sqnr_db_worst=float(np.min(decibels)),
        steps=steps,
        site_errors=site_errors,
        samples=samples,
        scheduler_steps=scheduler_steps,
        guidance_scale=guidance_scale,
        not_applicable=tuple(name for name in named if figures[name] is None),
        **figures,
    )


def _joined(first: Sampled, second: Sampled) -> Sampled:
    assert first.images is not None and second.images is not None
    return Sampled(
        seeds=first.seeds + second.seeds,
        latents=np.concatenate([first.latents, second.latents]),
        images=np.concatenate([first.images, second.images]),
    )


def _pictures(
    reference: Sampled, quantized: Sampled, judge: Judge | None
) -> ReportImages | None:
    if reference.images is None or quantized.images is None:
        return None
    count = min(_PICTURES, len(reference.seeds))
    seeds = reference.seeds[:count]
    return ReportImages(
        float_images=reference.images[:count],
        quantized_images=quantized.images[:count],
        seeds=seeds,
        labels=tuple(str(judge.wanted(seed)) for seed in seeds) if judge is not None else (),
    )
