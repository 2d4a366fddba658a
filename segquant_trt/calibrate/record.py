"""Record the denoiser's inputs along real denoising trajectories.

Q-Diffusion (arXiv 2302.04304, section 4.1) calibrates on inputs sampled evenly over the denoising
steps, for the conditional and the unconditional branch alike; static statistics of one step or of
noise alone miss how activations drift with time.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from segquant_trt.models.loop import Array, Denoise, DenoisingLoop, Float32, OnStep
from segquant_trt.records.recordings import write_shard


def record(
    loop: DenoisingLoop,
    denoise: Denoise,
    folder: Path,
    *,
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float | None,
    batch_size: int,
    on_step: OnStep | None = None,
) -> int:
    """Run `loop` and write the inputs of every call as a shard; memory holds one call at a time.

    Returns:
        The number of samples (seed x guidance branch x step) recorded.
    """
    calls = itertools.count()
    recorded = 0

    def recording(inputs: Mapping[str, Array]) -> Float32:
        nonlocal recorded
        write_shard(folder / f"shard-{next(calls):05d}.safetensors", inputs)
        prediction = denoise(inputs)
        recorded += len(prediction)
        return prediction

    loop.sample(
        recording,
        seeds=seeds,
        steps=steps,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        on_step=on_step,
    )
    return recorded
