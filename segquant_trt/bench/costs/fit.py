"""From timed sites to a cost table: prices that are not negative, by least relative squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from segquant_trt.bench.costs.interleaved import Ratio, Seconds
from segquant_trt.bench.costs.shapes import BATCH, Shape
from segquant_trt.records import Target, Treatment, left_in_float
from segquant_trt.records.costs import CostLine, CostTable, CostTerm
from segquant_trt.records.hardware import hardware_name

Price: TypeAlias = Callable[[CostTable, Treatment, Shape], float]
"""Milliseconds of a site by a table; the planner's own sum, so that both count the same."""

_QUIET = 10  # percentile of the runs that others on the machine disturbed least


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Calls of one graph: how many, their median, and the tenth that was disturbed least."""

    runs: int
    median_ms: float
    quiet_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyCall:
    """A call in which nothing is computed, timed in turn with the float site `shape`."""

    empty: Timing
    shape: Shape
    site: Timing

    def among(self, cases: Sequence[Case]) -> float:
        """Milliseconds of it when `cases` were timed: their own `shape` tells how fast things were.

        A machine's speed drifts by more than the smallest site takes beside its call.
        """
        own = [case for case in cases if case.shape == self.shape and case.treatment is None]
        drift = own[0].quiet_ms / self.site.quiet_ms if own else 1.0
        return self.empty.quiet_ms * drift


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One site of `shape` under `treatment` (None: the float graph), timed with all its variants.

    `over_float` and `over_symmetric` say how many times faster than these it is.
    """

    target: Target
    shape: Shape
    variant: str
    treatment: Treatment | None
    label: str
    kernel: str
    runs: int
    median_ms: float
    quiet_ms: float
    over_float: Ratio
    over_symmetric: Ratio


def timing(seconds: Seconds) -> Timing:
    """The figures of one call's runs."""
    return Timing(
        runs=len(seconds),
        median_ms=float(np.median(seconds) * 1e3),
        quiet_ms=float(np.percentile(seconds, _QUIET) * 1e3),
    )


def fitted(
    cases: Sequence[Case],
    empty: EmptyCall,
    *,
    target: Target,
    threads: int,
    versions: dict[str, str],
    price: Price,
) -> CostTable:
    """The planner's table of `cases`.

    A model of many sites is called once, so what the `empty` call takes is no site's.
    A whole site behind a Concat is left out: its time is the Concat's as well.
    """
    table = CostTable(
        target=target,
        hardware=hardware_name(),
        threads=threads,
        versions=versions,
        batch=BATCH,
        median_error=0.0,
        lines=(),
    )
    empty_ms = empty.among(cases)
    lines: list[CostLine] = []
    errors: list[float] = []
    for op in ("linear", "convolution"):
        own = [case for case in cases if case.shape.op == op and not _behind_concat(case)]
        found, off = _prices(own, op, empty_ms, table, price)
        lines += found
        errors += off
    return replace(table, median_error=float(np.median(errors)), lines=tuple(lines))


def _prices(
    cases: Sequence[Case],
    op: Literal["linear", "convolution"],
    empty_ms: float,
    table: CostTable,
    price: Price,
) -> tuple[list[CostLine], list[float]]:
    """The prices of one kind of site, and every case's relative error of the whole call."""
    from scipy.optimize import nnls

    taken = np.array([case.quiet_ms for case in cases])
    amounts = np.array([_amounts(case, op, table, price) for case in cases])
    # In nanoseconds all terms are of one magnitude after scaling by their largest amount.
    scale = np.maximum(amounts.max(axis=0), 1e-12)
    found, _ = nnls(amounts / scale / taken[:, None], (taken - empty_ms) / taken)
    prices: npt.NDArray[np.float64] = found / scale
    lines = [
        CostLine(op=op, term=term, nanoseconds=float(value))
        for term, value in zip(get_args(CostTerm), prices, strict=True)
        if value > 0.0
    ]
    return lines, list(np.abs((amounts @ prices + empty_ms) / taken - 1.0))


def _amounts(
    case: Case, op: Literal["linear", "convolution"], table: CostTable, price: Price
) -> list[float]:
    """Milliseconds of the case if one nanosecond were the price of one term alone, term by term."""
    treatment = case.treatment or left_in_float(case.shape.channels)
    return [
        price(
            replace(table, lines=(CostLine(op=op, term=term, nanoseconds=1.0),)),
            treatment,
            case.shape,
        )
        for term in get_args(CostTerm)
    ]


def _behind_concat(case: Case) -> bool:
    segments = 1 if case.treatment is None else len(case.treatment.segments)
    return len(case.shape.parts) != segments
