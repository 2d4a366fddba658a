"""A comparison as one self-contained HTML page; equal records give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segquant_trt.records.comparison import CaseFigures, Comparison
from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.report import numerals
from segquant_trt.report.comparison_plot import latency_svg, pareto_points, pareto_svg
from segquant_trt.report.comparison_table import (
    ceiling_text,
    fact_row,
    figure_row,
    headings,
)

_FOLDER = Path(__file__).parent


def write_page(out: Path, comparison: Comparison) -> None:
    """Write the page to `out`, atomically.

    Raises:
        SegQuantError: `out` cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"ms": numerals.milliseconds, "percent": numerals.percent}
    environment.filters.update(filters)
    page = environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        cases=[
            _section(number, case, comparison)
            for number, case in enumerate(comparison.cases, start=1)
        ],
        facts=[fact_row(facts) for facts in comparison.subjects],
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
    )
    atomic_write_bytes(out, page.encode())


def _section(number: int, case: CaseFigures, comparison: Comparison) -> dict[str, Any]:
    points = pareto_points(case, comparison)
    return {
        "id": f"case-{number}",
        "case": case,
        "rounds": case.subjects[0].latency.runs,
        "headings": headings(case),
        "rows": [figure_row(found, case) for found in case.subjects],
        "latency": latency_svg(f"latency-{number}", case),
        "pareto": pareto_svg(f"pareto-{number}", points) if len(points) > 1 else None,
        "ceilings": [ceiling_text(ceiling) for ceiling in case.ceilings],
    }
