"""The whole stage: inputs from a loop, from the user or from nowhere; then statistics."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segquant_trt.backends.denoise import float_denoise
from segquant_trt.calibrate.collect import collect
from segquant_trt.calibrate.record import record
from segquant_trt.models import family_for
from segquant_trt.models.loop import DenoisingLoop
from segquant_trt.records import ModelSpec
from segquant_trt.records.calibration import write_calibration
from segquant_trt.records.recordings import (
    Recordings,
    is_batched,
    open_recordings,
    write_shard,
)
from segquant_trt.records.shards import Array

SYNTHETIC_STEPS = 8
_SYNTHETIC_AT_MOST = {"tokens": 1024, "height": 64, "width": 64}  # noise looks alike at any size
_EXCERPT_STEPS = 10
_COLLECT_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRequest:
    """Where inputs come from: `inputs` if given, else `loop`, else they are made up."""

    loop: DenoisingLoop | None
    inputs: Path | None
    seeds: tuple[int, ...]
    steps: int
    guidance_scale: float | None
    batch_size: int
    threads: int | None


def calibrate(
    run: Path,
    weights_folder: Path,
    spec: ModelSpec,
    request: CalibrationRequest,
    *,
    on_progress: Callable[[str, int, int], None],
) -> str:
    """Write `calibration.safetensors`, `excerpt.safetensors` and, from a loop, `recordings/`.

    Returns:
        Where the inputs came from: `trajectories`, `inputs` or `synthetic`.

    Raises:
        SegQuantError: recorded inputs that do not fit the model, or NaN.
    """
    model = run / "model.onnx"
    folder = run / "recordings"
    shutil.rmtree(folder, ignore_errors=True)
    if request.inputs is not None:
        origin, source = "inputs", request.inputs
    elif request.loop is not None:
        origin, source = "trajectories", folder
        record(
            request.loop,
            float_denoise(model, weights_folder, threads=request.threads, lean=True),
            folder,
            seeds=request.seeds,
            steps=request.steps,
            guidance_scale=request.guidance_scale,
            batch_size=request.batch_size,
            on_step=lambda done, total: on_progress("record trajectories", done, total),
        )
    else:
        origin, source = "synthetic", folder
        write_shard(folder / "shard-00000.safetensors", synthetic_inputs(spec, seed=0))
    recordings = open_recordings(source, spec)
    calibration = collect(
        model,
        weights_folder,
        recordings,
        origin=origin,
        checkpoint_sha256=spec.checkpoint_sha256,
        batch_size=_COLLECT_BATCH,
        threads=request.threads,
        on_batch=lambda done, total: on_progress("gather statistics", done, total),
    )
    write_shard(run / "excerpt.safetensors", excerpt(recordings))
    write_calibration(run / "calibration.safetensors", calibration)
    return origin


def synthetic_inputs(spec: ModelSpec, *, seed: int) -> dict[str, Array]:
    """Made-up inputs over evenly spaced timesteps: ranges of noise, not of images.

    What this costs: activations late in the trajectory, where the latent is no longer noise,
    are not seen, and their ranges may be clipped.
    """
    family = family_for(spec.class_name)
    lengths = {
        axis.name: max(axis.minimum, min(axis.typical, _SYNTHETIC_AT_MOST.get(axis.name, 1 << 30)))
        for axis in spec.axes
    }
    low, high = family.timestep_range
    calls = []
    for index, value in enumerate(np.linspace(high, low, SYNTHETIC_STEPS + 1)[:-1]):
        inputs = family.example_inputs(spec.config, lengths, seed=seed * 1000 + index)
        if spec.timestep is not None:
            inputs[spec.timestep] = np.full_like(inputs[spec.timestep], value)
        calls.append(inputs)
    batched = {tensor.name: is_batched(tensor) for tensor in spec.inputs}
    return {
        name: np.concatenate([call[name] for call in calls]) if batched[name] else calls[0][name]
        for name in batched
    }


def excerpt(recordings: Recordings) -> dict[str, Array]:
    """Two samples at each of at most ten timesteps, evenly spaced from the first to the last.

    The last steps may be far more delicate than those before them. The first and the last sample
    of a call are taken: with guidance, one of each branch. Only samples of the first one's sizes
    are, since the excerpt is a single shard.
    """
    distinct = sorted({step for step, _ in _of_one_size(recordings)}, reverse=True)
    last = len(distinct) - 1
    wanted = {distinct[i * last // (_EXCERPT_STEPS - 1)] for i in range(_EXCERPT_STEPS)}
    chosen: list[dict[str, Array]] = []
    for step, inputs in _of_one_size(recordings):
        if step in wanted:
            wanted.discard(step)
            chosen.append(inputs)
    return {
        name: np.concatenate([part[name] for part in chosen]) if batched else chosen[0][name]
        for name, batched in recordings.batched.items()
    }


def _of_one_size(recordings: Recordings) -> Iterator[tuple[float, dict[str, Array]]]:
    """Both ends of every timestep, of the first one's sizes, and its value (0 without one)."""
    sizes = None
    for inputs in recordings.ends():
        own = {
            name: x.shape[1:] if recordings.batched[name] else x.shape for name, x in inputs.items()
        }
        sizes = sizes or own
        if own == sizes:
            step = np.ravel(inputs[recordings.timestep])[0] if recordings.timestep else 0.0
            yield float(step), inputs
