"""Find the denoising loop that belongs to an exported model, and its timesteps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loop import DenoisingLoop
from segquant_trt.records import CheckpointLocation, ModelSpec
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.step_rows import table_steps


def open_loop(
    spec: ModelSpec, location: CheckpointLocation, options: CompileOptions
) -> DenoisingLoop | None:
    """The zoo's loop, the diffusers pipeline's, or None for a denoiser folder alone.

    Raises:
        SegQuantError: the pipeline cannot be loaded, or does not know an option.
    """
    if location.pipeline_folder is None:
        return None
    folder = Path(location.pipeline_folder)
    if spec.source.startswith("zoo:"):
        from segquant_trt.models.zoo_loop import ZooLoop

        return ZooLoop(folder)
    from segquant_trt.models.pipelines import PipelineLoop

    return PipelineLoop(
        folder,
        spec,
        prompts=options.prompts,
        height=options.height,
        width=options.width,
        scheduler=options.scheduler,
        device=options.device,
        dtype=options.dtype,
    )


def scheduled_timesteps(
    spec: ModelSpec, location: CheckpointLocation, options: CompileOptions
) -> tuple[float, ...]:
    """Every timestep that the denoiser sees under `options.freeze_schedule`: float32, ascending.

    Raises:
        SegQuantError: the denoiser has no pipeline around it, a schedule does not fit it, or a
            timestep is not a finite number.
    """
    steps = table_steps(_heard(spec, location, options))
    if not all(abs(step) < float("inf") for step in steps):
        raise SegQuantError(
            f"the schedule {options.freeze_schedule} gives timesteps that are not finite",
            hint="check the scheduler and the number of steps",
        )
    return steps


def _heard(
    spec: ModelSpec, location: CheckpointLocation, options: CompileOptions
) -> Iterator[float]:
    for schedule in options.schedules():
        if schedule.size is not None and spec.source.startswith("zoo:"):
            raise SegQuantError(
                f"{spec.source} has one size; freeze_schedule gives another",
                hint="leave :HxW out",
            )
        height, width = schedule.size or (options.height, options.width)
        sized = replace(options, height=height, width=width, prompts=None)
        loop = open_loop(spec, location, sized)
        if loop is None or spec.timestep is None:
            raise SegQuantError(
                f"{spec.source} is a denoiser without a scheduler around it, so the timesteps of "
                f"{options.freeze_schedule} are not known",
                hint="compile the whole pipeline's folder, or leave --freeze-schedule out",
            )
        yield from loop.timesteps(schedule.steps, scheduler=schedule.scheduler)
