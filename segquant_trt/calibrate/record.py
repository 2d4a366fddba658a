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
    """Run `loop` and write the inputs of every call as a shard.

    The loop is run for `batch_size` seeds at a time and its latents and images are dropped, so
    that memory does not grow with the number of seeds; a seed's trajectory is its own.

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

    chunks = [seeds[start : start + batch_size] for start in range(0, len(seeds), batch_size)]
    for index, chunk in enumerate(chunks):
        loop.sample(
            recording,
            seeds=chunk,
            steps=steps,
            guidance_scale=guidance_scale,
            batch_size=batch_size,
            on_step=_shifted(on_step, index, len(chunks)),
        )
    return recorded


def _shifted(on_step: OnStep | None, index: int, count: int) -> OnStep | None:
    """Progress of chunk `index` of `count` as progress of them all."""
    if on_step is None:
        return None
    return lambda done, total: on_step(index * total + done, count * total)
