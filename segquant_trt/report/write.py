"""`report.html`: one self-contained page; equal records give equal bytes."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.records import Benchmark, GraphFacts, Manifest, ModelSpec, Quality, QuantPlan
from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.report import numerals
from segquant_trt.report.charts import bar_chart, sites_chart, steps_chart
from segquant_trt.report.contenders import contender_rows
from segquant_trt.report.figures import absent, byte_bars, cards, latency_bars
from segquant_trt.report.pictures import gallery
from segquant_trt.report.sites import SiteRow, site_rows
from segquant_trt.report.words import MEANINGS, ROLES

if TYPE_CHECKING:
    from jinja2 import Environment

    from segquant_trt.records.images import ReportImages

_FOLDER = Path(__file__).parent
_COSTLIEST = 12


def write_report(
    out: Path,
    *,
    spec: ModelSpec,
    facts: GraphFacts,
    plan: QuantPlan,
    manifest: Manifest,
    quality: Quality,
    benchmark: Benchmark,
    images: ReportImages | None,
    digests: Mapping[str, str],
) -> None:
    """Write the report to `out`, atomically.

    `digests` maps a file's name to its sha256. `images` is None for a denoiser without a
    pipeline; figures that are None are left out and named under "not applicable".

    Raises:
        SegQuantError: `out` cannot be written.
    """
    rows = site_rows(facts, plan, quality)
    used = {word for row in rows for word in row.words}
    versions = {**spec.exporter, **benchmark.versions, **manifest.versions}
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            spec=spec,
            plan=plan,
            manifest=manifest,
            quality=quality,
            benchmark=benchmark,
            cards=cards(manifest, quality, benchmark, plan.prediction),
            absent=absent(quality),
            gallery=gallery(images) if images is not None else None,
            contenders=contender_rows(plan),
            rows=rows,
            largest_share=max((row.macs_share for row in rows), default=0.0),
            roles=Counter(row.role for row in rows),
            schemes=Counter(row.scheme for row in rows),
            mix=Counter(row.words for row in rows).most_common(),
            meanings={word: MEANINGS[word] for word in MEANINGS if word in used},
            roles_meant=ROLES,
            charts=_charts(rows, quality, benchmark),
            notes=facts.notes,
            digests=dict(digests),
            versions=dict(sorted(versions.items())),
            style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
            script=script,
            script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    atomic_write_bytes(out, page.encode())


def _charts(rows: Sequence[SiteRow], quality: Quality, benchmark: Benchmark) -> dict[str, str]:
    charts = {
        "size": bar_chart(
            "size",
            "Size on disk",
            byte_bars(benchmark.size_bytes_float, benchmark.size_bytes_quantized),
        ),
    }
    if benchmark.latency_float is not None:
        charts["latency"] = bar_chart("latency", "Latency per call", latency_bars(benchmark))
    peaks = benchmark.peak_memory_bytes_float, benchmark.peak_memory_bytes_quantized
    if peaks[0] is not None and peaks[1] is not None:
        charts["memory"] = bar_chart("memory", "Peak memory", byte_bars(peaks[0], peaks[1]))
    if quality.steps:
        charts["steps"] = steps_chart(quality.steps)
    known = [(row.name, row.error_db) for row in rows if row.error_db is not None]
    if known:
        charts["sites"] = sites_chart(sorted(known, key=lambda pair: pair[1])[:_COSTLIEST])
    return charts


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "db": numerals.decibels,
        "percent": numerals.percent,
        "size": numerals.size,
        "ms": numerals.milliseconds,
        "ratio": numerals.ratio,
        "significant": numerals.significant,
        "breakable": _breakable,
    }
    environment.filters.update(filters)
    return environment


def _breakable(name: str) -> Any:
    """`a.b/c` with break opportunities after dots and slashes."""
    from markupsafe import Markup, escape

    text = str(escape(name))
    for mark in "./":
        text = text.replace(mark, f"{mark}<wbr>")
    return Markup(text)  # noqa: S704 - escaped above; only <wbr> is added
