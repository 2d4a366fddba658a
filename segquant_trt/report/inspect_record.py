"""Descriptions of the YAML and JSON records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from typing_extensions import assert_never

from segquant_trt.records import (
    Benchmark,
    CheckpointLocation,
    FrozenSteps,
    GraphFacts,
    HoistedPrompt,
    LatencyFigure,
    Manifest,
    ModelSpec,
    Prediction,
    Quality,
    QuantPlan,
    TensorSpec,
)
from segquant_trt.records.trials import Trials
from segquant_trt.report.contenders import contender_table
from segquant_trt.report.description import Cell, Description, Property, Table, columns
from segquant_trt.report.inspect_facts import describe_facts
from segquant_trt.report.inspect_trials import describe_trials

Record: TypeAlias = (
    ModelSpec
    | CheckpointLocation
    | GraphFacts
    | Trials
    | QuantPlan
    | Manifest
    | Quality
    | Benchmark
)


def describe_record(record: Record, name: str) -> Description:
    """What the record read from the file called `name` says."""
    match record:
        case ModelSpec():
            return _model(record, name)
        case CheckpointLocation():
            return _location(record, name)
        case GraphFacts():
            return describe_facts(record, name)
        case Trials():
            return describe_trials(record, name)
        case QuantPlan():
            return _plan(record, name)
        case Manifest():
            return describe_manifest(record, name)
        case Quality():
            return _quality(record, name)
        case Benchmark():
            return _benchmark(record, name)
        case _:
            assert_never(record)


def describe_manifest(manifest: Manifest, name: str) -> Description:
    """A bundle's table of contents, files unchecked."""
    return Description(
        kind="bundle manifest",
        properties=(
            Property(name="file", value=name),
            Property(name="source", value=manifest.source),
            Property(name="class", value=manifest.class_name),
            Property(name="target", value=manifest.target),
            Property(name="sites", value=manifest.sites_total),
            Property(name="integer sites", value=manifest.sites_integer),
            Property(name="MACs in integers", value=manifest.macs_integer_share, unit="share"),
            *_frozen(manifest.frozen),
            *_hoisted(manifest.hoisted),
            Property(name="float size", value=manifest.size_bytes_float, unit="bytes"),
            Property(name="quantised size", value=manifest.size_bytes_quantized, unit="bytes"),
        ),
        tables=(
            _tensors((*manifest.inputs, manifest.output)),
            _pairs("versions", "package", "version", manifest.versions),
            _pairs("provenance", "record", "sha256", manifest.provenance),
        ),
    )


def _frozen(frozen: FrozenSteps | None) -> tuple[Property, ...]:
    if frozen is None:
        return ()
    steps = ", ".join(f"{step:g}" for step in frozen.timesteps)
    return (
        Property(name="frozen schedule", value=frozen.schedule),
        Property(name="frozen timesteps", value=steps),
        Property(name="sites in tables", value=len(frozen.sites)),
        Property(name="other timesteps", value="fallback" if frozen.fallback else "refused"),
    )


def _hoisted(hoisted: HoistedPrompt | None) -> tuple[Property, ...]:
    if hoisted is None:
        return ()
    return (
        Property(name="inputs of a prompt", value=", ".join(hoisted.inputs)),
        Property(name="sites once per prompt", value=len(hoisted.sites)),
        Property(name="MACs once per prompt", value=hoisted.macs_share, unit="share"),
    )


def _model(spec: ModelSpec, name: str) -> Description:
    error = spec.validation.max_relative_error if spec.validation else None
    return Description(
        kind="model specification",
        properties=(
            Property(name="file", value=name),
            Property(name="source", value=spec.source),
            Property(name="class", value=spec.class_name),
            Property(name="family", value=spec.family),
            Property(name="opset", value=spec.opset),
            Property(name="checkpoint", value=spec.size_bytes_float, unit="bytes"),
            Property(name="timestep input", value=spec.timestep),
            Property(name="prompt inputs", value=", ".join(spec.prompt_inputs) or None),
            Property(name="export error", value=error, unit="number"),
            Property(name="graph sha256", value=spec.onnx_sha256),
        ),
        tables=(
            _tensors((*spec.inputs, spec.output)),
            Table(
                title="dynamic axes",
                columns=columns(
                    "axis", *((n, "count") for n in ("min", "typical", "max", "multiple"))
                ),
                rows=tuple(
                    (axis.name, axis.minimum, axis.typical, axis.maximum, axis.multiple)
                    for axis in spec.axes
                ),
            ),
        ),
    )


def _location(location: CheckpointLocation, name: str) -> Description:
    return Description(
        kind="checkpoint location",
        properties=(
            Property(name="file", value=name),
            Property(name="folder", value=location.folder),
            Property(name="pipeline", value=location.pipeline_folder),
            Property(name="files", value=len(location.inode)),
        ),
    )


def _plan(plan: QuantPlan, name: str) -> Description:
    macs = sum(site.macs_per_sample for site in plan.sites)
    rows: list[tuple[Cell, ...]] = []
    for site in plan.sites:
        share = site.macs_per_sample / macs if macs else None
        rows.append((site.site, site.module, site.treatment.label, share, site.why))
    return Description(
        kind="quantisation plan",
        properties=(
            Property(name="file", value=name),
            Property(name="target", value=plan.target),
            Property(name="preset", value=plan.preset),
            Property(name="sites", value=len(plan.sites)),
            Property(name="MACs per sample", value=macs, unit="number"),
            *_expected(plan.prediction),
            Property(name="graph sha256", value=plan.onnx_sha256),
        ),
        tables=(
            *contender_table(plan),
            _counts("treatments", "treatment", (site.treatment.label for site in plan.sites)),
            Table(
                title="sites",
                columns=columns("site", "module", "treatment", ("MACs", "share"), "why"),
                rows=tuple(rows),
            ),
        ),
    )


def _temporal(quality: Quality) -> tuple[Table, ...]:
    """Errors of temporal features; nothing in decibels is no error at all."""
    if not quality.temporal:
        return ()
    figures = ("SQNR mean, dB", "SQNR worst, dB", "relative error, worst")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            feature.module or feature.site,
            feature.depends_on,
            feature.held,
            feature.sqnr_db_mean,
            feature.sqnr_db_worst,
            feature.relative_error_worst,
        )
        for feature in quality.temporal
    )
    names = columns("module", "depends on", "held", *((name, "number") for name in figures))
    return (Table(title="temporal features", columns=names, rows=rows),)


def _expected(prediction: Prediction | None) -> tuple[Property, ...]:
    if prediction is None:
        return ()
    figures = (
        ("expected SQNR per step, dB", prediction.sqnr_db_mean),
        ("expected SQNR of the final latent, dB", prediction.latent_sqnr_db),
        ("sites by the cost table, ms", prediction.latency_ms),
        ("sites if plain, ms", prediction.latency_ms_plain),
    )
    return tuple(Property(name=name, value=value, unit="number") for name, value in figures)


def _quality(quality: Quality, name: str) -> Description:
    figures: tuple[tuple[str, Cell], ...] = (
        ("SQNR mean, dB", quality.sqnr_db_mean),
        ("SQNR worst, dB", quality.sqnr_db_worst),
        ("latent SQNR, dB", quality.latent_sqnr_db),
        ("its standard error, dB", quality.latent_sqnr_db_stderr),
        ("latent SQNR of float16, dB", quality.latent_sqnr_db_float16),
        ("PSNR, dB", quality.psnr_db),
        ("SSIM", quality.ssim),
        ("classifier accuracy", quality.classifier_accuracy),
        ("classifier accuracy, float", quality.classifier_accuracy_float),
        ("Frechet distance", quality.frechet_distance),
        ("Frechet distance, float", quality.frechet_distance_float),
    )
    return Description(
        kind="quality figures",
        properties=(
            Property(name="file", value=name),
            Property(name="samples", value=quality.samples),
            *(Property(name=label, value=value, unit="number") for label, value in figures),
            Property(name="not applicable", value=", ".join(quality.not_applicable) or None),
        ),
        tables=(
            Table(
                title="steps",
                columns=columns(*((n, "number") for n in ("timestep", "SQNR, dB", "float16, dB"))),
                rows=tuple((s.timestep, s.sqnr_db, s.sqnr_db_float16) for s in quality.steps),
            ),
            *_temporal(quality),
            Table(
                title="sites by cost",
                columns=columns("site", "module", ("SQNR alone, dB", "number")),
                rows=tuple(
                    (error.site, error.module, error.sqnr_db)
                    for error in sorted(quality.site_errors, key=lambda error: error.sqnr_db)
                ),
            ),
        ),
    )


def _milliseconds(figure: LatencyFigure | None) -> tuple[float | None, ...]:
    if figure is None:
        return (None, None, None)
    return figure.median_ms, figure.p90_ms, figure.p99_ms


def _benchmark(benchmark: Benchmark, name: str) -> Description:
    return Description(
        kind="benchmark figures",
        properties=(
            Property(name="file", value=name),
            Property(name="batch", value=benchmark.latency_batch),
            Property(name="not measured", value=benchmark.not_measured),
            Property(name="speed-up", value=benchmark.speedup_median, unit="number"),
            Property(name="speed-up, low", value=benchmark.speedup_low, unit="number"),
            Property(name="speed-up, high", value=benchmark.speedup_high, unit="number"),
        ),
        tables=(
            Table(
                title="float and quantised",
                columns=columns(
                    "model",
                    *((n, "number") for n in ("median ms", "p90 ms", "p99 ms")),
                    ("peak memory", "bytes"),
                    ("size", "bytes"),
                ),
                rows=tuple(
                    (label, *_milliseconds(figure), peak, stored)
                    for label, figure, peak, stored in (
                        (
                            "float",
                            benchmark.latency_float,
                            benchmark.peak_memory_bytes_float,
                            benchmark.size_bytes_float,
                        ),
                        (
                            "quantised",
                            benchmark.latency_quantized,
                            benchmark.peak_memory_bytes_quantized,
                            benchmark.size_bytes_quantized,
                        ),
                    )
                ),
            ),
            _pairs("hardware", "part", "value", benchmark.hardware),
            _pairs("versions", "package", "version", benchmark.versions),
        ),
    )


def _tensors(tensors: Iterable[TensorSpec]) -> Table:
    return Table(
        title="inputs and output",
        columns=columns("name", "type", "shape"),
        rows=tuple(
            (tensor.name, tensor.dtype, f"[{', '.join(map(str, tensor.shape))}]")
            for tensor in tensors
        ),
    )


def _pairs(title: str, key: str, value: str, pairs: dict[str, str]) -> Table:
    return Table(
        title=title,
        columns=columns(key, value),
        rows=tuple(sorted(pairs.items())),
    )


def _counts(title: str, name: str, values: Iterable[str]) -> Table:
    return Table(
        title=title,
        columns=columns(name, ("sites", "count")),
        rows=tuple(Counter(values).most_common()),
    )
