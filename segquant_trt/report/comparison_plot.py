"""Latency against quality: which bundles are worth having."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segquant_trt.records.comparison import CaseFigures, Comparison
from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.report.drawing import LIGHT, PAGE, Palette, bare, drawing, image_of, svg_of
from segquant_trt.report.numerals import milliseconds

_TITLE = "Latency against quality"
_LATENCY = "Latency per call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One subject of a case; `best` when none is both faster and better.

    `low_ms` and `high_ms`: the reference's median over the bounds of the paired ratio.
    """

    subject: str
    latency_ms: float
    low_ms: float
    high_ms: float
    latent_sqnr_db: float
    best: bool


def pareto_points(case: CaseFigures, comparison: Comparison) -> tuple[Point, ...]:
    """The subjects whose latent SQNR is known, fastest first."""
    known = {
        facts.subject: facts.latent_sqnr_db
        for facts in comparison.subjects
        if facts.latent_sqnr_db is not None
    }
    ordered = sorted(
        (found for found in case.subjects if found.subject in known),
        key=lambda found: (found.latency.median_ms, -known[found.subject]),
    )
    reference_ms = next(one.latency.median_ms for one in case.subjects if one.speedup is None)
    points: list[Point] = []
    highest_db = float("-inf")
    for found in ordered:
        sqnr_db, latency_ms, ratio = known[found.subject], found.latency.median_ms, found.speedup
        points.append(
            Point(
                subject=found.subject,
                latency_ms=latency_ms,
                low_ms=latency_ms if ratio is None else reference_ms / ratio.high,
                high_ms=latency_ms if ratio is None else reference_ms / ratio.low,
                latent_sqnr_db=sqnr_db,
                best=sqnr_db > highest_db,
            )
        )
        highest_db = max(highest_db, sqnr_db)
    return tuple(points)


def pareto_svg(name: str, points: Sequence[Point]) -> str:
    """The points as an element of a page, a line through those that are best."""
    with drawing(name, 9.6, 3.6) as (figure, axes):
        _pareto(axes, points, PAGE)
        return svg_of(figure, name, _TITLE)


def latency_svg(name: str, case: CaseFigures) -> str:
    """Medians as bars with marks at p90 and p99, as an element of a page."""
    with drawing(name, 9.6, 0.42 + 0.36 * len(case.subjects)) as (figure, axes):
        _bars(axes, case, PAGE)
        return svg_of(figure, name, _LATENCY)


def write_plot(path: Path, comparison: Comparison) -> None:
    """Write one picture: latency against quality where two bundles have both, else latencies.

    Raises:
        SegQuantError: the file cannot be written.
    """
    case = comparison.cases[0]
    points = pareto_points(case, comparison)
    height = 3.6 if len(points) > 1 else 0.8 + 0.36 * len(case.subjects)
    with drawing("comparison", 9.6, height, palette=LIGHT) as (figure, axes):
        if len(points) > 1:
            _pareto(axes, points, LIGHT)
        else:
            _bars(axes, case, LIGHT)
        axes.set_title(case.title, loc="left", color=LIGHT.muted, fontsize=9)
        atomic_write_bytes(path, image_of(figure, path.suffix))


def _pareto(axes: object, points: Sequence[Point], palette: Palette) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    best = [point for point in points if point.best]
    axes.plot(
        [point.latency_ms for point in best],
        [point.latent_sqnr_db for point in best],
        color=palette.accent,
        linewidth=1.4,
        drawstyle="steps-post",
    )
    middle = (points[0].latency_ms + points[-1].latency_ms) / 2
    for point in points:
        color = palette.accent if point.best else palette.float_
        place = (point.latency_ms, point.latent_sqnr_db)
        axes.scatter(*place, color=color, s=34, zorder=3)
        axes.hlines(place[1], point.low_ms, point.high_ms, color=color, linewidth=3, alpha=0.35)
        axes.annotate(
            point.subject,
            place,
            xytext=(0, 8 if point.best else -15),
            textcoords="offset points",
            ha="right" if point.latency_ms > middle else "left",
            color=palette.ink if point.best else palette.muted,
        )
    axes.margins(0.16, 0.22)
    axes.set_xlabel("median latency per call in ms; broad: 95 % interval of the paired ratio")
    axes.set_ylabel("SQNR of the final latent in dB")
    axes.grid(axis="y")
    axes.tick_params(length=0)


def _bars(axes: object, case: CaseFigures, palette: Palette) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    furthest = max(found.latency.p99_ms for found in case.subjects)
    for row, found in enumerate(case.subjects):
        latency = found.latency
        color = palette.float_ if found.speedup is None else palette.accent
        axes.barh(row, latency.median_ms, height=0.62, color=color)
        axes.hlines(row, latency.median_ms, latency.p99_ms, color=palette.muted, linewidth=0.8)
        marks = (latency.p90_ms, latency.p99_ms)
        axes.vlines(marks, row - 0.2, row + 0.2, color=palette.muted, linewidth=1.2)
        axes.text(
            latency.p99_ms + 0.02 * furthest,
            row,
            milliseconds(latency.median_ms),
            va="center",
            fontweight="bold",
        )
    names = [found.subject for found in case.subjects]
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.2 * furthest)
    axes.invert_yaxis()
    bare(axes)
