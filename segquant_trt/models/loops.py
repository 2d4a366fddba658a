"""Find the denoising loop that belongs to an exported model."""

from __future__ import annotations

from pathlib import Path

from segquant_trt.models.loop import DenoisingLoop
from segquant_trt.records import CheckpointLocation, ModelSpec
from segquant_trt.records.options import CompileOptions


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
