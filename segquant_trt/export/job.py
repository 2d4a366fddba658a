"""What one export attempt does, inside its own process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segquant_trt.models import family_for
from segquant_trt.models.checkpoint import read_tensors
from segquant_trt.models.family import Family
from segquant_trt.records import Validation
from segquant_trt.records.scratch import scratch_folder

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A denoiser to export into `out`, its weights staying where they are."""

    class_name: str
    config: dict[str, Any]
    checkpoint: tuple[Path, ...]
    out: Path


def run_job(job: Job, on_progress: OnProgress) -> Validation:
    """Export `job.out` and check it numerically.

    Raises:
        SegQuantError: the checkpoint does not fit, or the graph computes something else.
    """
    family = family_for(job.class_name)
    if fits_in_memory(job.checkpoint):
        with scratch_folder(job.out) as folder:
            graph = folder / job.out.name
            _export(family, job.config, job.checkpoint, graph, on_progress)
            on_progress(0.7, "checking the graph against torch")
            validation = _checked("model", graph, job.checkpoint, family, job.config)
            os.replace(graph, job.out)
        return validation
    from segquant_trt.export.cut import write_cut

    on_progress(0.05, "checking a small cut of the architecture against torch")
    with scratch_folder(job.out) as folder:
        config, checkpoint = write_cut(family, job.config, job.checkpoint, folder)
        graph = folder / "model.onnx"
        _export(family, config, checkpoint, graph, lambda fraction, text: None)
        validation = _checked(
            "two-block cut with random weights", graph, checkpoint, family, config
        )
    _export(family, job.config, job.checkpoint, job.out, on_progress)
    return validation


def fits_in_memory(checkpoint: Iterable[Path]) -> bool:
    """Whether the weights in float32 take less than a quarter of this machine's memory."""
    elements = 0
    for tensor in read_tensors(tuple(checkpoint)).values():
        count = 1
        for length in tensor.shape:
            count *= length
        elements += count
    return 4 * elements < memory_bytes() // 4


def memory_bytes() -> int:
    """Physical memory, or the control group's limit where that is smaller."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def _export(
    family: Family,
    config: Mapping[str, Any],
    checkpoint: tuple[Path, ...],
    out: Path,
    on_progress: OnProgress,
) -> None:
    from segquant_trt.export.bind import bind
    from segquant_trt.export.fake_model import fake_module
    from segquant_trt.export.fold import fold, hide_weights
    from segquant_trt.export.naming import finish
    from segquant_trt.export.trace import trace
    from segquant_trt.models.torch_module import match
    from segquant_trt.records.files import atomic_write_bytes

    on_progress(0.1, f"tracing {family.class_name}")
    module, mode = fake_module(family, config)
    matched = match(module, read_tensors(checkpoint))
    model = trace(module, mode, family, config)
    on_progress(0.5, "folding constants")
    weights = hide_weights(model)
    fold(model)
    bind(model, weights, matched)
    finish(model, weights, family.inputs(config), family.output(config))
    on_progress(0.6, "writing the graph")
    atomic_write_bytes(out, serialized(model))


def serialized(model: Any) -> bytes:
    """The model's bytes, the same in every process."""
    import onnx_ir as ir

    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _checked(
    subject: str,
    graph: Path,
    checkpoint: tuple[Path, ...],
    family: Family,
    config: Mapping[str, Any],
) -> Validation:
    from segquant_trt.export.validate import validate

    sizes, error = validate(graph, checkpoint, family, config)
    return Validation(subject=subject, sizes=sizes, max_relative_error=error)
