"""Assemble `quality.json`: every figure of a bundle against its float model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from segquant_trt.models.loop import Array, Denoise, DenoisingLoop
from segquant_trt.records import Quality, StepFigure
from segquant_trt.records.images import ReportImages
from segquant_trt.verify.free_running import (
    Judge,
    Sampled,
    Sampling,
    image_figures,
    judged,
    latent_sqnr_db,
    latent_sqnr_db_stderr,
    sample,
)
from segquant_trt.verify.teacher_forced import TeacherForced

_PICTURES = 20
_LOOP_FIGURES = ("scheduler_steps", "guidance_scale")
_FLOOR_SEEDS = 16  # the float16 floor varies little from seed to seed
_FIGURES = (
    "latent_sqnr_db",
    "latent_sqnr_db_float16",
    "psnr_db",
    "ssim",
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
    head = run("float trajectories", forced, request.seeds[:_FLOOR_SEEDS])
    half = run("float16 trajectories", denoisers.float16, head.seeds)
    forced.floor = False
    rest = request.seeds[_FLOOR_SEEDS:]
    reference = _joined(head, run("more float trajectories", forced, rest) if rest else None)
    more = request.judged_seeds if judge is not None else request.seeds
    quantized = run("quantised trajectories", denoisers.quantized, more)
    figures = {
        "latent_sqnr_db": latent_sqnr_db(reference, quantized.first(count)),
        "latent_sqnr_db_float16": latent_sqnr_db(head, half),
        **image_figures(reference, quantized.first(count)),
    }
    if judge is not None:
        unseen = more[count:]
        extra = run("float images", denoisers.reference, unseen) if unseen else None
        figures.update(judged(quantized, judge, suffix=""))
        figures.update(judged(_joined(reference, extra), judge, suffix="_float"))
    quality = _quality(
        request, forced.figures(), samples=count, figures=figures, sampling=request.sampling
    )
    stderr_db = latent_sqnr_db_stderr(reference, quantized.first(count))
    quality = replace(quality, latent_sqnr_db_stderr=stderr_db)
    return quality, _pictures(reference, quantized, loop)


def verify_inputs(
    batches: Iterable[Mapping[str, Array]], denoisers: Denoisers, request: Verification
) -> Quality:
    """Teacher-forced figures on recorded inputs: for a denoiser without its pipeline."""
    forced = TeacherForced(
        denoisers.reference, denoisers.quantized, denoisers.float16, timestep=request.timestep
    )
    samples = sum(len(forced(inputs)) for inputs in batches)
    return _quality(request, forced.figures(), samples=samples)


def _quality(
    request: Verification,
    steps: tuple[StepFigure, ...],
    *,
    samples: int,
    figures: Mapping[str, float] | None = None,
    sampling: Sampling | None = None,
) -> Quality:
    decibels = [step.sqnr_db for step in steps]
    found = figures or {}
    absent = [name for name in _FIGURES if name not in found]
    return Quality(
        bundle_manifest_sha256=request.manifest_sha256,
        sqnr_db_mean=float(np.mean(decibels)),
        sqnr_db_worst=float(np.min(decibels)),
        steps=steps,
        latent_sqnr_db=found.get("latent_sqnr_db"),
        latent_sqnr_db_float16=found.get("latent_sqnr_db_float16"),
        psnr_db=found.get("psnr_db"),
        ssim=found.get("ssim"),
        classifier_accuracy=found.get("classifier_accuracy"),
        classifier_accuracy_float=found.get("classifier_accuracy_float"),
        frechet_distance=found.get("frechet_distance"),
        frechet_distance_float=found.get("frechet_distance_float"),
        site_errors=(),
        samples=samples,
        scheduler_steps=sampling.steps if sampling else None,
        guidance_scale=sampling.guidance_scale if sampling else None,
        not_applicable=(*absent, *(() if sampling else _LOOP_FIGURES)),
    )


def _joined(first: Sampled, second: Sampled | None) -> Sampled:
    if second is None:
        return first
    return Sampled(
        seeds=first.seeds + second.seeds,
        latents=np.concatenate([first.latents, second.latents]),
        images=(
            None
            if first.images is None or second.images is None
            else np.concatenate([first.images, second.images])
        ),
    )


def _pictures(reference: Sampled, quantized: Sampled, loop: DenoisingLoop) -> ReportImages | None:
    if reference.images is None or quantized.images is None:
        return None
    count = min(_PICTURES, len(reference.seeds))
    seeds = reference.seeds[:count]
    return ReportImages(
        float_images=reference.images[:count],
        quantized_images=quantized.images[:count],
        seeds=seeds,
        labels=tuple(loop.condition(seed) for seed in seeds),
    )
