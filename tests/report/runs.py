"""Synthetic records of a whole run, for the report's tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segquant_trt.records import (
    AxisRange,
    Benchmark,
    BundleFile,
    CheckpointFile,
    Considered,
    GraphFacts,
    KeepFloat,
    LatencyFigure,
    LinearSite,
    Manifest,
    ModelSpec,
    Quality,
    QuantPlan,
    Shifted,
    SiteError,
    SitePlan,
    StepFigure,
    Symmetric,
    TensorSpec,
    TimestepOnlySite,
    Validation,
)
from segquant_trt.records.images import ReportImages
from segquant_trt.report.write import write_report
from tests.small_graphs import treated

SHA = "0123456789abcdef" * 4
LEAVES = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")
INPUTS = (
    TensorSpec(name="sample", dtype="float32", shape=("batch", 1, "height", "width")),
    TensorSpec(name="timestep", dtype="float32", shape=("batch",)),
)
OUTPUT = TensorSpec(name="out", dtype="float32", shape=("batch", 1, "height", "width"))
AXES = (AxisRange(name="batch", minimum=1, typical=2, maximum=8),)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The arguments of `write_report`."""

    spec: ModelSpec
    facts: GraphFacts
    plan: QuantPlan
    manifest: Manifest
    quality: Quality
    benchmark: Benchmark
    images: ReportImages | None

    def write(self, out: Path) -> str:
        arguments: dict[str, Any] = {name: getattr(self, name) for name in self.__annotations__}
        digests = {"plan.yaml": SHA, "bundle/manifest.json": SHA[::-1]}
        write_report(out, **arguments, digests=digests)
        return out.read_text(encoding="utf-8")


def zoo_run(sites: int = 118) -> Run:
    """A run with every figure present."""
    names = [_module(i) for i in range(sites)]
    return Run(
        spec=_spec("zoo:digits-unet", "UNet2DConditionModel"),
        facts=GraphFacts(
            onnx_sha256=SHA,
            sites=tuple(_site(i, name) for i, name in enumerate(names)),
            timestep_only=tuple(
                TimestepOnlySite(site=f"node_linear_{i}", values=(f"t{i + 1}",)) for i in range(2)
            ),
            notes=("node_upsample_2: an unknown operator is treated as opaque",),
        ),
        plan=QuantPlan(
            target="onnxruntime",
            preset="int8",
            onnx_sha256=SHA,
            facts_sha256=SHA,
            calibration_sha256=SHA,
            sites=tuple(_planned(i, name) for i, name in enumerate(names)),
        ),
        manifest=_manifest("zoo:digits-unet", "UNet2DConditionModel", sites),
        quality=_quality(names),
        benchmark=_benchmark(),
        images=digit_images(16),
    )


def bare_run() -> Run:
    """A denoiser folder: no scheduler, pipeline, classifier or images, and a slow result."""
    run = zoo_run(9)
    quality = replace(
        run.quality,
        steps=(),
        latent_sqnr_db=None,
        latent_sqnr_db_float16=None,
        psnr_db=None,
        ssim=None,
        classifier_accuracy=None,
        classifier_accuracy_float=None,
        frechet_distance=None,
        frechet_distance_float=None,
        site_errors=(),
        scheduler_steps=None,
        guidance_scale=None,
        not_applicable=("latent_sqnr_db", "psnr_db", "ssim", "classifier_accuracy"),
    )
    return replace(
        run,
        spec=replace(run.spec, source="transformer", timestep=None, validation=None),
        manifest=replace(run.manifest, source="transformer", timestep=None),
        benchmark=replace(
            run.benchmark, speedup_median=0.93, speedup_low=0.9, speedup_high=0.97, hardware={}
        ),
        quality=quality,
        images=None,
    )


def digit_images(count: int) -> ReportImages:
    """Blurry 16x16 digits from scikit-learn and slightly altered copies."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rng = np.random.default_rng(7)
    small = data.images[:count].astype(np.float32) / 16
    reference = small.repeat(2, axis=1).repeat(2, axis=2)
    noise = rng.normal(0, 0.03, reference.shape).astype(np.float32) * (0.3 + reference)
    return ReportImages(
        float_images=reference,
        quantized_images=np.clip(reference + noise, 0, 1).astype(np.float32),
        seeds=tuple(range(count)),
        labels=tuple(str(label) for label in data.target[:count]),
    )


def photo_images(count: int, side: int) -> ReportImages:
    """Smooth colour images with noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    stack = []
    for i in range(count):
        phase = rng.uniform(0, 6, 3)
        waves = [0.5 + 0.5 * np.sin(6 * x + p + 3 * y * (i + 1)) for p in phase]
        stack.append(np.stack(waves, axis=-1))
    reference = np.clip(np.stack(stack) + rng.normal(0, 0.02, (count, side, side, 3)), 0, 1)
    quantized = np.clip(reference + rng.normal(0, 0.03, reference.shape), 0, 1)
    return ReportImages(
        float_images=reference.astype(np.float32),
        quantized_images=quantized.astype(np.float32),
        seeds=tuple(range(40, 40 + count)),
        labels=tuple(f"a photograph of a harbour at dusk, number {i}" for i in range(count)),
    )


def _module(i: int) -> str:
    block, leaf = divmod(i, len(LEAVES))
    return f"down_blocks.{block // 4}.attentions.{block % 4}.transformer_blocks.0.{LEAVES[leaf]}"


def _spec(source: str, class_name: str) -> ModelSpec:
    return ModelSpec(
        source=source,
        family="unet",
        class_name=class_name,
        config={"in_channels": 1},
        inputs=INPUTS,
        output=OUTPUT,
        axes=AXES,
        timestep="timestep",
        prompt_inputs=(),
        opset=20,
        onnx_sha256=SHA,
        checkpoint=(
            CheckpointFile(
                name="w.safetensors", size_bytes=5_912_040, header_sha256=SHA, sample_sha256=SHA
            ),
        ),
        validation=Validation(subject="model", sizes=("2x16x16",), max_relative_error=2e-6),
        exporter={"torch": "2.13.0", "onnx": "1.23.2"},
    )


def _site(i: int, module: str) -> LinearSite:
    return LinearSite(
        name=f"node_linear_{i}",
        op="MatMul",
        module=module,
        role="embedder" if i < 2 else "body",
        activation=f"t{i}",
        weight=f"{module}.weight",
        weight_layout="NK",
        bias=None,
        bias_node=None,
        output=f"t{i + 1}",
        in_features=192,
        out_features=768,
        kernel=(),
        groups=1,
        activation_rank=3,
    )


def _planned(i: int, module: str) -> SitePlan:
    why = "MSE-searched range beats absmax by 1.8 dB on calibration rows"
    activation: Symmetric | Shifted | KeepFloat = Symmetric(scale=0.0124 * (1 + i % 7))
    considered: tuple[Considered, ...] = (
        Considered(
            option="absmax", sqnr_db=29.4, cost_ms=None, reason="one outlier row sets the scale"
        ),
        Considered(
            option="percentile 99.99", sqnr_db=30.9, cost_ms=0.4, reason="clips the positive tail"
        ),
    )
    if i < 2:
        activation, why, considered = KeepFloat(), "embedders stay float in this preset", ()
    elif i % len(LEAVES) == 5:
        activation = Shifted(scale=0.0213, zero_shift=-97)
        why = "post-GELU input: 91 % of values lie above zero, a shifted range wastes no codes"
    return SitePlan(
        site=f"node_linear_{i}",
        module=module,
        treatment=treated(192, activation),
        output_range=(-3.0, 3.0),
        macs_per_sample=100_000 * (1 + (i * 37) % 23),
        why=why,
        considered=considered,
    )


def _quality(names: list[str]) -> Quality:
    times = np.linspace(999, 1, 20)
    return Quality(
        bundle_manifest_sha256=SHA,
        sqnr_db_mean=31.4,
        sqnr_db_worst=26.8,
        steps=tuple(
            StepFigure(
                timestep=float(t),
                sqnr_db=34
                - 7.2 * float(np.exp(-(((t - 120) / 160) ** 2)))
                + 1.2 * float(np.cos(t)),
                sqnr_db_float16=66 + 4 * float(t) / 999,
            )
            for t in times
        ),
        latent_sqnr_db=24.7,
        latent_sqnr_db_float16=58.9,
        psnr_db=33.1,
        ssim=0.9874,
        classifier_accuracy=0.965,
        classifier_accuracy_float=0.97,
        frechet_distance=3.42,
        frechet_distance_float=3.18,
        site_errors=tuple(
            SiteError(site=f"node_linear_{i}", module=name, sqnr_db=38.0 + (i * 53) % 41 + i / 100)
            for i, name in enumerate(names)
            if i >= 2
        ),
        samples=64,
        scheduler_steps=20,
        guidance_scale=3.5,
        not_applicable=(),
    )


def _manifest(source: str, class_name: str, sites: int) -> Manifest:
    return Manifest(
        target="onnxruntime",
        source=source,
        family="unet",
        class_name=class_name,
        config={},
        inputs=INPUTS,
        output=OUTPUT,
        axes=AXES,
        timestep="timestep",
        files=(BundleFile(name="model.onnx", sha256=SHA, size_bytes=10),),
        versions={"segquant-trt": "0.1.0", "onnxruntime": "1.31.1"},
        provenance={"plan": SHA},
        size_bytes_float=5_912_040,
        size_bytes_quantized=1_587_112,
        sites_total=sites,
        sites_integer=sites - 2,
        macs_integer_share=0.9871,
    )


def _benchmark() -> Benchmark:
    return Benchmark(
        bundle_manifest_sha256=SHA,
        latency_batch=2,
        shapes={"sample": (2, 1, 16, 16), "timestep": ()},
        latency_float=LatencyFigure(median_ms=12.42, p90_ms=13.1, p99_ms=15.9, runs=200),
        latency_quantized=LatencyFigure(median_ms=8.31, p90_ms=8.9, p99_ms=10.4, runs=200),
        speedup_median=1.49,
        speedup_low=1.46,
        speedup_high=1.52,
        peak_memory_bytes_float=212_000_000,
        peak_memory_bytes_quantized=171_000_000,
        size_bytes_float=5_912_040,
        size_bytes_quantized=1_587_112,
        hardware={"cpu": "AMD EPYC, 2 cores", "instruction sets": "avx2"},
        versions={"python": "3.11.2"},
    )
