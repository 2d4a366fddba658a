"""The export stage: `model.onnx`, `model.yaml` and `model.location.yaml` in a run folder."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.export.job import Job, OnProgress
from segquant_trt.export.process import run_in_process
from segquant_trt.graph.safetensors_header import read_header, sample_sha256
from segquant_trt.models import family_for
from segquant_trt.models.family import Family
from segquant_trt.models.source import ModelSource
from segquant_trt.records import (
    AxisRange,
    CheckpointFile,
    CheckpointLocation,
    ModelSpec,
    Validation,
)
from segquant_trt.records.codec import write_record
from segquant_trt.records.files import sha256_file

_PACKAGES = ("torch", "diffusers", "onnx", "onnxscript", "onnx-ir")


def export(
    source: ModelSource,
    run: Path,
    *,
    typical: Mapping[str, int] | None = None,
    on_progress: OnProgress | None = None,
) -> ModelSpec:
    """Export a denoiser without loading its weights.

    The graph's initializers name the checkpoint's own safetensors files (file, offset, length).

    Args:
        source: what `resolve` found.
        run: the folder to write into.
        typical: lengths of dynamic axes that calibration and latency figures shall use, where
            they differ from the family's. A zoo model's are its own loop's.
        on_progress: called with a fraction in 0..1 and what is being done.

    Raises:
        SegQuantError: the checkpoint does not fit its configuration, a length in `typical` is
            not allowed, the graph computes something else than torch, or nothing can be written.
    """
    family = family_for(source.class_name)
    with family.described():
        axes = family.sizes(source.config)
    axes = _with_typical(axes, typical or _zoo_lengths(source, family))
    job = Job(
        class_name=source.class_name,
        config=source.config,
        checkpoint=source.checkpoint,
        out=run / "model.onnx",
    )
    validation = run_in_process(job, on_progress or (lambda fraction, text: None))
    spec = _spec(source, family, axes, validation, sha256_file(job.out))
    write_record(run / "model.location.yaml", _location(source))
    write_record(run / "model.yaml", spec)
    return spec


def _zoo_lengths(source: ModelSource, family: Family) -> dict[str, int]:
    """The axes as the zoo's loop uses them for one image with guidance; empty for others."""
    if source.kind != "zoo" or source.pipeline_folder is None:
        return {}
    import numpy as np

    from segquant_trt.models.zoo_loop import ZooLoop

    loop = ZooLoop(source.pipeline_folder)
    inputs = loop.inputs(np.zeros((1, *loop.latent_shape), dtype=np.float32), 0.0, [0])
    return {
        axis: inputs[name].shape[position]
        for name, axes in family.input_axes(source.config).items()
        for position, axis in axes.items()
    }


def _with_typical(axes: tuple[AxisRange, ...], typical: Mapping[str, int]) -> tuple[AxisRange, ...]:
    by_name = {axis.name: axis for axis in axes}
    for name, length in typical.items():
        axis = by_name.get(name)
        if axis is None:
            raise SegQuantError(
                f"there is no axis '{name}'; this model has {', '.join(by_name)}",
                hint="use one of these names",
            )
        if not axis.minimum <= length <= axis.maximum or length % axis.multiple:
            raise SegQuantError(
                f"axis '{name}' cannot have length {length}; allowed: {axis.minimum} to "
                f"{axis.maximum} in steps of {axis.multiple}",
                hint="choose an allowed length",
            )
    return tuple(
        replace(axis, typical=typical[axis.name]) if axis.name in typical else axis for axis in axes
    )


def _spec(
    source: ModelSource,
    family: Family,
    axes: tuple[AxisRange, ...],
    validation: Validation,
    onnx_sha256: str,
) -> ModelSpec:
    from segquant_trt.export.lower import OPSET

    headers = [read_header(file) for file in source.checkpoint]
    return ModelSpec(
        source=source.name,
        family=family.name,
        class_name=source.class_name,
        config=source.config,
        inputs=family.inputs(source.config),
        output=family.output(source.config),
        axes=axes,
        timestep=family.timestep,
        prompt_inputs=family.prompt_inputs(source.config),
        opset=OPSET,
        onnx_sha256=onnx_sha256,
        checkpoint=tuple(
            CheckpointFile(
                name=header.path.name,
                size_bytes=header.size_bytes,
                header_sha256=header.sha256,
                sample_sha256=sample_sha256(header),
            )
            for header in headers
        ),
        validation=validation,
        exporter={name: importlib.metadata.version(name) for name in _PACKAGES},
    )


def _location(source: ModelSource) -> CheckpointLocation:
    states = {file.name: file.stat() for file in source.checkpoint}
    pipeline = source.pipeline_folder
    return CheckpointLocation(
        folder=str(source.checkpoint[0].parent),
        pipeline_folder=str(pipeline.resolve()) if pipeline else None,
        mtime_ns={name: state.st_mtime_ns for name, state in states.items()},
        inode={name: state.st_ino for name, state in states.items()},
    )
