"""A comparison as text: one table per size, what the subjects are, what limits them."""

from __future__ import annotations

from collections.abc import Sequence

from segquant_trt.records.comparison import (
    CaseFigures,
    Ceiling,
    Comparison,
    PairedRatio,
    SubjectFacts,
    SubjectFigures,
)
from segquant_trt.report.numerals import (
    NOTHING,
    decibels,
    milliseconds,
    percent,
    ratio,
    significant,
    size,
)

Row = tuple[str, ...]
_HEADINGS: Row = ("subject", "median", "p90", "p99", "samples/s", "times as fast [95 %]", "answer")
_FACTS: Row = (
    "subject",
    "runs as",
    "size",
    "memory",
    "MACs in integers",
    "step SQNR",
    "latent SQNR",
)


def comparison_text(comparison: Comparison) -> str:
    """All tables, ready to be printed."""
    parts = [case_text(case, comparison.reference) for case in comparison.cases]
    parts.append(aligned([_FACTS, *map(fact_row, comparison.subjects)]))
    parts += [kernels_text(facts) for facts in comparison.subjects if facts.kernels]
    parts += [f"note: {note}" for note in comparison.notes]
    return "\n\n".join(parts)


def case_text(case: CaseFigures, reference: str) -> str:
    """The table of one size, and under it the ceilings."""
    clocks = {figures.clock for figures in case.subjects}
    clock = "the GPU's events" if clocks == {"device"} else "wall clock"
    rounds = case.subjects[0].latency.runs
    lines = [
        f"{case.title}: {rounds} interleaved rounds, {clock}; relative to {reference}",
        aligned([headings(case), *(figure_row(found, case) for found in case.subjects)]),
        *map(ceiling_text, case.ceilings),
    ]
    return "\n".join(lines)


def headings(case: CaseFigures) -> Row:
    """Names of the columns of `figure_row`."""
    return (*_HEADINGS, "energy") if _has_energy(case) else _HEADINGS


def figure_row(found: SubjectFigures, case: CaseFigures) -> Row:
    """One subject's row."""
    latency = found.latency
    row = (
        found.subject,
        milliseconds(latency.median_ms),
        milliseconds(latency.p90_ms),
        milliseconds(latency.p99_ms),
        significant(found.samples_per_s),
        speedup_text(found.speedup),
        answer_text(found),
    )
    return (*row, energy_text(found.energy_j_per_call)) if _has_energy(case) else row


def _has_energy(case: CaseFigures) -> bool:
    return any(found.energy_j_per_call is not None for found in case.subjects)


def speedup_text(found: PairedRatio | None) -> str:
    """`1.42x [1.40, 1.45]`."""
    if found is None:
        return "reference"
    return f"{ratio(found.median)} [{found.low:.2f}, {found.high:.2f}]"


def answer_text(found: SubjectFigures) -> str:
    """How close the answer to the same call is to the reference's."""
    if found.speedup is None:
        return NOTHING
    return "equal to the bit" if found.answer_equal else decibels(found.answer_sqnr_db)


def energy_text(joules: float | None) -> str:
    """Joules per call."""
    return NOTHING if joules is None else f"{significant(joules)} J"


def ceiling_text(ceiling: Ceiling) -> str:
    """The sentence under a table."""
    return (
        f"at most {ratio(ceiling.speedup_attention_16bit)} over 16 bits, and "
        f"{ratio(ceiling.speedup_attention_8bit)} with attention in 8 bits too, where 8-bit "
        f"products are {significant(ceiling.ratio)} times as fast: {ceiling.of} "
        f"({shares_text(ceiling)})"
    )


def shares_text(ceiling: Ceiling) -> str:
    """Who does how much of the work."""
    more = ceiling.repeated_share
    again = f" and {percent(more)} more for second products of polarities" if more else ""
    return (
        f"{percent(ceiling.coded_share)} of {significant(ceiling.macs / 1e9)} G "
        f"multiply-accumulates coded{again}, attention {percent(ceiling.attention_share)}, "
        f"the rest {percent(ceiling.other_share)}"
    )


def fact_row(facts: SubjectFacts) -> Row:
    """What a subject is."""
    memory = size(facts.peak_memory_bytes)
    if facts.device_memory_bytes is not None:
        memory += f" + {size(facts.device_memory_bytes)} on the GPU"
    return (
        facts.subject,
        facts.kind,
        size(facts.size_bytes),
        memory,
        percent(facts.macs_integer_share),
        decibels(facts.sqnr_db_mean),
        decibels(facts.latent_sqnr_db),
    )


def kernels_text(facts: SubjectFacts) -> str:
    """The costliest kernels of a subject."""
    rows: list[Row] = [("per call", "share", "operator", "node")]
    rows += [
        (milliseconds(found.ms_per_call), percent(found.share), found.op, found.name)
        for found in facts.kernels
    ]
    return f"costliest kernels of {facts.subject}\n{aligned(rows)}"


def aligned(rows: Sequence[Row]) -> str:
    """Columns of equal width: the first and last to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in (0, last) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
