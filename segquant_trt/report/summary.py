"""The figures of a run folder in one flat object: what `compile --json` prints last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from segquant_trt.errors import SegQuantError
from segquant_trt.records import Benchmark, LatencyFigure, Manifest, Quality, QuantPlan
from segquant_trt.records.codec import from_plain, read_record, to_plain
from segquant_trt.records.files import sha256_file

Record = TypeVar("Record")
_MEASURED = (
    "latency_ms_float",
    "latency_ms_quantized",
    "speedup",
    "speedup_95",
    "peak_memory_bytes_float",
    "peak_memory_bytes_quantized",
)
Measured = TypeVar("Measured", Quality, Benchmark)


def read_json_record(path: Path, kind: type[Record]) -> Record:
    """Read a record that is stored as JSON.

    Raises:
        SegQuantError: missing, not JSON, or not a record of this kind.
    """
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SegQuantError(
            f"{path} is missing or not valid JSON", hint="run the stage that writes it again"
        ) from error
    return from_plain(plain, kind, origin=str(path))


def _of_bundle(path: Path, kind: type[Measured], manifest_sha256: str | None) -> Measured | None:
    """Figures of the bundle that is there now; those of an earlier one do not count."""
    if not path.exists():
        return None
    record = read_json_record(path, kind)
    return record if record.bundle_manifest_sha256 == manifest_sha256 else None


def _expected(path: Path) -> dict[str, Any]:
    """What the bundle's plan was expected to reach, and whose it is."""
    plan = read_record(path, QuantPlan)
    expected = plan.prediction
    return {
        "planner": plan.planner,
        "expected_sqnr_db_mean": None if expected is None else expected.sqnr_db_mean,
        "expected_latent_sqnr_db": None if expected is None else expected.latent_sqnr_db,
    }


def _overtaken(run: Path) -> bool:
    """Whether the plan has changed since the bundle was built from it."""
    plan, built = run / "plan.yaml", run / "bundle" / "plan.yaml"
    if not plan.exists() or sha256_file(plan) == sha256_file(built):
        return False
    # An edit may change its form alone; reading plans takes time, so bytes are compared first.
    return read_record(plan, QuantPlan) != read_record(built, QuantPlan)


def _median_ms(figure: LatencyFigure | None) -> float | None:
    return None if figure is None else figure.median_ms


def _interval(figures: Benchmark) -> list[float] | None:
    if figures.speedup_low is None or figures.speedup_high is None:
        return None
    return [figures.speedup_low, figures.speedup_high]


def summarize(run: Path) -> dict[str, Any]:
    """The figures there are so far; keys without meaning for this model are null."""
    summary: dict[str, Any] = {"run": str(run)}
    missing: list[str] = []
    manifest_path = run / "bundle" / "manifest.json"
    current = sha256_file(manifest_path) if manifest_path.exists() else None
    quality = _of_bundle(run / "quality.json", Quality, current)
    if quality is not None:
        plain = to_plain(quality)
        missing += plain.pop("not_applicable")
        for name in (
            "steps",
            "site_errors",
            "temporal",
            "schema_version",
            "bundle_manifest_sha256",
        ):
            plain.pop(name)
        summary.update(plain)
    figures = _of_bundle(run / "benchmark.json", Benchmark, current)
    if figures is not None:
        summary.update(
            latency_ms_float=_median_ms(figures.latency_float),
            latency_ms_quantized=_median_ms(figures.latency_quantized),
            latency_batch=figures.latency_batch,
            speedup=figures.speedup_median,
            speedup_95=_interval(figures),
            peak_memory_bytes_float=figures.peak_memory_bytes_float,
            peak_memory_bytes_quantized=figures.peak_memory_bytes_quantized,
        )
        if figures.not_measured is not None:
            summary["latency_not_measured"] = figures.not_measured
            missing += [name for name in _MEASURED if summary[name] is None]
    if current is not None:
        manifest = read_json_record(manifest_path, Manifest)
        summary.update(
            target=manifest.target,
            size_bytes_float=manifest.size_bytes_float,
            size_bytes_quantized=manifest.size_bytes_quantized,
            sites_total=manifest.sites_total,
            sites_integer=manifest.sites_integer,
            macs_integer_share=manifest.macs_integer_share,
            bundle=str(run / "bundle"),
        )
        if manifest.frozen is not None:
            summary["sites_frozen"] = len(manifest.frozen.sites)
        if manifest.hoisted is not None:
            summary["sites_hoisted"] = len(manifest.hoisted.sites)
            summary["macs_hoisted_share"] = manifest.hoisted.macs_share
        summary.update(_expected(run / "bundle" / "plan.yaml"))
        if _overtaken(run):
            summary["outdated"] = "bundle and figures are those of an earlier plan than plan.yaml"
    if (run / "report.html").exists():
        summary["report"] = str(run / "report.html")
    summary["not_applicable"] = missing
    return summary
