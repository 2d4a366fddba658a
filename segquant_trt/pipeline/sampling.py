"""How a run samples: what its options leave open is the zoo's, or the pipeline's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segquant_trt.records.stage import Work

if TYPE_CHECKING:
    from segquant_trt.models.loop import DenoisingLoop

STEPS = 20
_ZOO_GUIDANCE = 3.5


def loop_of(work: Work) -> DenoisingLoop | None:
    """The denoising loop of the run's model; None where it is a denoiser alone."""
    from segquant_trt.models.loops import open_loop

    return open_loop(work.spec(), work.location(), work.options)


def is_zoo(work: Work) -> bool:
    """Whether the model is one that ships with the package."""
    return work.spec().source.startswith("zoo:")


def guidance_of(work: Work) -> float | None:
    """The guidance scale that was asked for, else the model's own."""
    given = work.options.guidance_scale
    return _ZOO_GUIDANCE if given is None and is_zoo(work) else given


def batch_size_of(work: Work) -> int:
    """Seeds that are sampled together."""
    return 32 if is_zoo(work) else 1  # seeds at once; guidance doubles them


def sample_count(work: Work) -> int:
    """How many seeds calibration samples."""
    # Of the 32 prompts that ship, the last eight are left for verification.
    return work.options.num_samples or (32 if is_zoo(work) else 24)
