"""The plans that competed: what was expected of each, and what it did."""

from __future__ import annotations

from dataclasses import dataclass

from segquant_trt.records import Contender, QuantPlan
from segquant_trt.report.description import Cell, Table, columns
from segquant_trt.report.numerals import NOTHING, decibels, significant

_MINUS, _PLUS_MINUS = "\N{MINUS SIGN}", "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContenderRow:
    """One plan in words. `margin` is to the chosen plan, with its standard error."""

    name: str
    cost: str
    expected: str
    per_step: str
    latent: str
    margin: str
    verdict: str
    chosen: bool


def contender_rows(plan: QuantPlan) -> tuple[ContenderRow, ...]:
    """The chosen plan first, then those that ran from good to bad, then those that did not."""
    ordered = sorted(plan.chosen_from, key=_rank)
    return tuple(
        ContenderRow(
            name=contender.name,
            cost=NOTHING
            if contender.latency_ms is None
            else f"{significant(contender.latency_ms)} ms",
            expected=decibels(contender.expected_db),
            per_step=decibels(contender.measured_db),
            latent=decibels(contender.latent_db),
            margin=_margin(contender),
            verdict=contender.verdict,
            chosen=contender.chosen,
        )
        for contender in ordered
    )


def contender_table(plan: QuantPlan) -> tuple[Table, ...]:
    """The same for `inspect`; none where no plan was run."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            contender.name,
            contender.latency_ms,
            contender.expected_db,
            contender.measured_db,
            contender.latent_db,
            contender.margin_db,
            contender.margin_stderr_db,
            contender.verdict,
        )
        for contender in sorted(plan.chosen_from, key=_rank)
    )
    names = ("sites, ms", "expected, dB", "per step, dB", "latent, dB", "margin, dB", "error, dB")
    headed = columns("plan", *((name, "number") for name in names), "verdict")
    return (Table(title="plans that competed", columns=headed, rows=rows),) if rows else ()


def _rank(contender: Contender) -> tuple[int, float]:
    if contender.chosen:
        return 0, 0.0
    return (1, -contender.margin_db) if contender.margin_db is not None else (2, 0.0)


def _margin(contender: Contender) -> str:
    if contender.margin_db is None:
        return NOTHING
    sign = _MINUS if contender.margin_db < 0 else "+"
    text = f"{sign}{abs(contender.margin_db):.2f}"
    error = contender.margin_stderr_db
    return f"{text} dB" if error is None else f"{text} {_PLUS_MINUS} {error:.2f} dB"
