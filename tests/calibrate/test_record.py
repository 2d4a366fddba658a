"""Recording: every call becomes a shard, and nothing of a chunk outlives it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from segquant_trt.calibrate.record import record
from segquant_trt.models.loop import Denoise, Float32, OnStep


class Result:
    """What the loop returns; watched until it is freed."""

    def __init__(self, latents: Float32) -> None:
        self.latents = latents
        self.images: Float32 | None = None


class CountingLoop:
    """Latents start at the seed and grow by the prediction; two steps."""

    def __init__(self) -> None:
        self.alive: list[weakref.ref[Result]] = []
        self.alive_at_start: list[int] = []

    def sample(
        self,
        denoise: Denoise,
        *,
        seeds: Sequence[int],
        steps: int = 2,
        guidance_scale: float | None = None,
        batch_size: int = 1,
        on_step: OnStep | None = None,
    ) -> Any:
        gc.collect()
        self.alive_at_start.append(sum(ref() is not None for ref in self.alive))
        latents = np.array(seeds, dtype=np.float32)[:, None]
        for step in range(steps):
            doubled = np.concatenate([latents, latents])
            inputs = {"x": doubled, "timestep": np.full(len(doubled), step, dtype=np.float32)}
            latents = latents + denoise(inputs)[: len(latents)]
            if on_step is not None:
                on_step(step + 1, steps)
        result = Result(latents)
        self.alive.append(weakref.ref(result))
        return result


def test_every_call_is_a_shard_and_results_are_dropped(tmp_path: Path) -> None:
    loop, progress = CountingLoop(), []
    recorded = record(
        loop,
        lambda inputs: np.asarray(10 * np.ones_like(inputs["x"]), dtype=np.float32),
        tmp_path,
        seeds=[1, 2, 3, 4, 5],
        steps=2,
        guidance_scale=None,
        batch_size=2,
        on_step=lambda done, total: progress.append((done, total)),
    )
    shards = [load_file(path) for path in sorted(tmp_path.iterdir())]
    assert recorded == 5 * 2 * 2
    assert [shard["x"][:, 0].tolist() for shard in shards] == [
        [1, 2, 1, 2], [11, 12, 11, 12], [3, 4, 3, 4], [13, 14, 13, 14], [5, 5], [15, 15],
    ]  # fmt: skip
    assert progress == [(done, 6) for done in range(1, 7)]
    assert loop.alive_at_start == [0, 0, 0]
