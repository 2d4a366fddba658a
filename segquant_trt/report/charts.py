"""Charts of one run: steps, latency, sizes, sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segquant_trt.records import StepFigure
from segquant_trt.report.drawing import ACCENT, FLOAT, MUTED, RULE, WARN, bare, drawing, svg_of
from segquant_trt.report.numerals import decibels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One horizontal bar with its printed value; `ticks` are marks beyond it (p90, p99)."""

    label: str
    value: float
    text: str
    ticks: tuple[float, ...] = ()


def steps_chart(steps: Sequence[StepFigure]) -> str:
    """SQNR in dB over timesteps, denoising from left to right, with the float16 floor."""
    ordered = sorted(steps, key=lambda step: -step.timestep)
    times = [step.timestep for step in ordered]
    values = [step.sqnr_db for step in ordered]
    floor = [(step.timestep, step.sqnr_db_float16) for step in ordered]
    known = [(time, db) for time, db in floor if db is not None]
    with drawing("steps", 9.6, 3.3) as (figure, axes):
        lowest = min(0.0, *values)
        highest = max(*values, *(db for _, db in known), lowest + 1.0)
        crowded = bool(known) and abs(known[0][1] - values[0]) < 0.09 * (highest - lowest)
        below = crowded and known[0][1] < values[0]
        if known:
            axes.plot(*zip(*known, strict=True), color=FLOAT, linewidth=1.4, linestyle=(0, (4, 2)))
            axes.scatter(*zip(*known, strict=True), color=FLOAT, s=7)
            _name_line(axes, known[0], "float16 noise floor", MUTED, below=below)
        axes.fill_between(times, values, lowest, color=ACCENT, alpha=0.12, linewidth=0)
        axes.plot(times, values, color=ACCENT, linewidth=2.2)
        axes.scatter(times, values, color=ACCENT, s=16, zorder=3)
        _name_line(axes, (times[0], values[0]), "quantised", ACCENT, below=crowded and not below)
        _mark_worst(axes, times, values)
        _frame_steps(axes, times, [*values, *(db for _, db in known)])
        return svg_of(figure, "steps", "SQNR in decibels over timesteps")


def _frame_steps(axes: Axes, times: Sequence[float], values: Sequence[float]) -> None:
    low, high = min(0.0, *values), max(values)
    axes.set_ylim(low, high + 0.16 * (high - low or 1))
    if len(times) > 1:
        margin = 0.02 * (times[0] - times[-1])
        axes.set_xlim(times[0] + margin, times[-1] - margin)
    axes.set_xlabel("timestep (denoising runs from left to right)")
    axes.set_ylabel("SQNR in dB")
    axes.grid(axis="y")
    axes.tick_params(length=0)


def _name_line(
    axes: Axes, point: tuple[float, float], text: str, color: str, *, below: bool
) -> None:
    axes.annotate(
        text,
        point,
        xytext=(1, -15 if below else 7),
        textcoords="offset points",
        color=color,
        fontweight="bold",
    )


def _mark_worst(axes: Axes, times: Sequence[float], values: Sequence[float]) -> None:
    if len(values) < 2:
        return
    worst = min(range(len(values)), key=values.__getitem__)
    axes.scatter([times[worst]], [values[worst]], s=64, facecolor="none", edgecolor=WARN, zorder=4)
    axes.annotate(
        f"worst {decibels(values[worst])}",
        (times[worst], values[worst]),
        xytext=(0, -15),
        textcoords="offset points",
        color=WARN,
        ha="right" if worst > 0.85 * len(values) else "left" if worst < 2 else "center",
        fontweight="bold",
    )


def bar_chart(name: str, title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from zero; the first (float) is grey, the others are in the accent."""
    with drawing(name, 3.6, 0.42 + 0.36 * len(bars)) as (figure, axes):
        furthest = max(max((bar.value, *bar.ticks)) for bar in bars) or 1.0
        for row, bar in enumerate(bars):
            color = FLOAT if row == 0 else ACCENT
            axes.barh(row, bar.value, height=0.62, color=color)
            axes.hlines(row, bar.value, (bar.value, *bar.ticks)[-1], color=MUTED, linewidth=0.8)
            axes.vlines(bar.ticks, row - 0.2, row + 0.2, color=MUTED, linewidth=1.2)
            end = max((bar.value, *bar.ticks))
            axes.text(end + 0.03 * furthest, row, bar.text, va="center", fontweight="bold")
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.set_xlim(0, 1.42 * furthest)
        axes.invert_yaxis()
        bare(axes)
        return svg_of(figure, name, title)


def sites_chart(errors: Sequence[tuple[str, float]]) -> str:
    """The costliest sites: (name, output SQNR in dB with that site alone quantised), worst first.

    The dots' distance from the right edge is what a site costs.
    """
    with drawing("sites", 9.6, 0.75 + 0.235 * len(errors)) as (figure, axes):
        values = [error for _, error in errors]
        span = max(values) - min(values) or 1.0
        left = min(values) - 0.08 * span
        axes.hlines(range(len(errors)), left, values, color=RULE, linewidth=1.2)
        axes.scatter(values, range(len(errors)), color=ACCENT, s=34, zorder=3)
        for row, value in enumerate(values):
            axes.annotate(
                decibels(value), (value, row), xytext=(8, 0), textcoords="offset points",
                va="center_baseline",
            )  # fmt: skip
        axes.set_yticks(range(len(errors)), [_shorten(name) for name, _ in errors])
        axes.set_xlim(left, max(values) + 0.16 * span)
        axes.set_ylim(len(errors) - 0.4, -0.6)
        axes.set_xlabel("SQNR of the denoiser's output with this site alone quantised, in dB")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        return svg_of(figure, "sites", "The sites whose quantisation costs most")


def _shorten(name: str, limit: int = 58) -> str:
    return name if len(name) <= limit else "\N{HORIZONTAL ELLIPSIS}" + name[-(limit - 1) :]
