"""The whole stage: one guidance call of the excerpt, float against the bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segquant_trt.backends.denoise import float_denoise
from segquant_trt.bench.benchmark import Contender, benchmark
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.models.loop import Denoise
from segquant_trt.records import Benchmark, Manifest, ModelSpec
from segquant_trt.records.files import sha256_file
from segquant_trt.records.recordings import open_recordings, write_shard
from segquant_trt.records.step_rows import on_frozen_steps

_GUIDANCE_BATCH = 2


def unmeasured(run: Path, manifest: Manifest, why: str) -> Benchmark:
    """What there is to say of a bundle whose target does not run here: its size."""
    return Benchmark(
        bundle_manifest_sha256=sha256_file(run / "bundle" / "manifest.json"),
        latency_batch=_GUIDANCE_BATCH,
        shapes={},
        latency_float=None,
        latency_quantized=None,
        speedup_median=None,
        speedup_low=None,
        speedup_high=None,
        peak_memory_bytes_float=None,
        peak_memory_bytes_quantized=None,
        size_bytes_float=manifest.size_bytes_float,
        size_bytes_quantized=manifest.size_bytes_quantized,
        hardware=hardware(),
        versions=versions(),
        not_measured=why,
    )


def bench(
    run: Path,
    weights_folder: Path,
    spec: ModelSpec,
    manifest: Manifest,
    quantized: Denoise,
    *,
    threads: int | None,
    on_run: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Measure the bundle of a run folder beside its float graph, at guidance batch 2."""
    recordings = open_recordings(run / "excerpt.safetensors", spec)
    inputs = on_frozen_steps(next(recordings.batches(_GUIDANCE_BATCH)), manifest.frozen)
    inputs_file = run / ".stages" / "bench-inputs.safetensors"
    write_shard(inputs_file, inputs)
    return benchmark(
        Contender(
            denoise=float_denoise(run / "model.onnx", weights_folder, threads=threads),
            model=run / "model.onnx",
            folder=weights_folder,
        ),
        Contender(denoise=quantized, model=run / "bundle" / "model.onnx", folder=run / "bundle"),
        inputs,
        inputs_file=inputs_file,
        batch=_GUIDANCE_BATCH,
        manifest=manifest,
        manifest_sha256=sha256_file(run / "bundle" / "manifest.json"),
        on_run=on_run,
    )
