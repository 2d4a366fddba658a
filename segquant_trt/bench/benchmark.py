"""Assemble `benchmark.json`: float against quantised, the same inputs, the same machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.bench.latency import paired_latency
from segquant_trt.bench.memory import peak_memory_bytes
from segquant_trt.records import Benchmark, Manifest

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array, Denoise

_BUDGET_S = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One side of the comparison. `model` and `folder` locate it for a fresh process."""

    denoise: Denoise
    model: Path
    folder: Path


def benchmark(
    reference: Contender,
    quantized: Contender,
    inputs: Mapping[str, Array],
    *,
    inputs_file: Path,
    batch: int,
    manifest: Manifest,
    manifest_sha256: str,
    budget_s: float = _BUDGET_S,
    on_run: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Latency of alternating calls, peak memory of fresh processes, size.

    Args:
        inputs: one call's inputs; the same as stored in `inputs_file`.
        batch: samples in that call.
    """
    paired = paired_latency(
        lambda: reference.denoise(inputs),
        lambda: quantized.denoise(inputs),
        budget_s=budget_s,
        on_run=on_run,
    )
    return Benchmark(
        bundle_manifest_sha256=manifest_sha256,
        latency_batch=batch,
        shapes={name: tuple(array.shape) for name, array in inputs.items()},
        latency_float=paired.first,
        latency_quantized=paired.second,
        speedup_median=paired.ratio,
        speedup_low=paired.low,
        speedup_high=paired.high,
        peak_memory_bytes_float=peak_memory_bytes(
            "float", reference.model, reference.folder, inputs_file
        ),
        peak_memory_bytes_quantized=peak_memory_bytes(
            manifest.target, quantized.model, quantized.folder, inputs_file
        ),
        size_bytes_float=manifest.size_bytes_float,
        size_bytes_quantized=manifest.size_bytes_quantized,
        hardware=hardware(),
        versions=versions(),
    )
