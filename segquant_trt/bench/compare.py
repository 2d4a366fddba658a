"""Time several subjects at several sizes, and compare their answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segquant_trt.bench.energy import energy_j_per_call, energy_meter
from segquant_trt.bench.rounds import (
    Effort,
    Timings,
    interleaved_rounds,
    latency_figure,
    paired_ratio,
)
from segquant_trt.bench.timed import Subject, Timed
from segquant_trt.errors import SegQuantError
from segquant_trt.records.comparison import CaseFigures, Ceiling, SubjectFigures

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array, Float32

_ENERGY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One size: the lengths of its axes, a call's inputs, how many samples these are."""

    lengths: Mapping[str, int]
    inputs: Mapping[str, Array]
    batch: int
    ceilings: tuple[Ceiling, ...] = ()


def compare_case(
    subjects: Sequence[Subject],
    reference: str,
    case: Case,
    effort: Effort,
    *,
    on_run: Callable[[int, int], None] | None = None,
) -> tuple[CaseFigures, dict[str, Timings]]:
    """Figures of every subject at one size, and all timings behind them.

    Raises:
        SegQuantError: a subject does not take the inputs, or answers with NaN, infinity, or in
            another shape than the reference.
    """
    bound = [subject.bind(case.inputs) for subject in subjects]
    timings = interleaved_rounds(bound, effort, on_run=on_run)
    answers = {timed.name: _answer(timed) for timed in bound}
    figures = tuple(
        _figures(
            timed,
            timings,
            answers,
            reference=reference,
            batch=case.batch,
            energy=energy_j_per_call(energy_meter(subject.pci_bus_id), timed, seconds=_ENERGY_S),
        )
        for subject, timed in zip(subjects, bound, strict=True)
    )
    shapes = {name: tuple(array.shape) for name, array in case.inputs.items()}
    return (
        CaseFigures(
            lengths=dict(case.lengths),
            shapes=shapes,
            batch=case.batch,
            subjects=figures,
            ceilings=case.ceilings,
        ),
        timings,
    )


def _figures(
    timed: Timed,
    timings: Mapping[str, Timings],
    answers: Mapping[str, Float32],
    *,
    reference: str,
    batch: int,
    energy: float | None,
) -> SubjectFigures:
    own = timings[timed.name]
    first = timed.name == reference
    equal = first or np.array_equal(answers[timed.name], answers[reference])
    sqnr_db = None if equal else answer_sqnr_db(answers[reference], answers[timed.name], timed.name)
    return SubjectFigures(
        subject=timed.name,
        clock=own.clock,
        latency=latency_figure(own),
        speedup=None if first else paired_ratio(timings[reference], own),
        samples_per_s=batch * len(own.latency_ms) / float(own.latency_ms.sum()) * 1e3,
        answer_sqnr_db=sqnr_db,
        answer_equal=equal,
        energy_j_per_call=energy,
    )


def _answer(timed: Timed) -> Float32:
    found = timed.answer()
    if not np.isfinite(found).all():
        raise SegQuantError(
            f"{timed.name} answers with NaN or infinity, so its time says nothing",
            hint="'segquant-trt verify' shows from which step on; in float16 an overflow is likely",
        )
    return found


def answer_sqnr_db(reference: Float32, other: Float32, name: str) -> float | None:
    """Mean over samples of 10 log10(sum ref^2 / sum (ref - other)^2), in float64.

    None where that is no number: a reference of zeros, or a sample that is equal to the bit.

    Raises:
        SegQuantError: the shapes differ.
    """
    if reference.shape != other.shape:
        raise SegQuantError(
            f"{name} answers with shape {list(other.shape)}, the reference with "
            f"{list(reference.shape)}",
            hint="compare bundles, files and modules of one model",
        )
    wanted = reference.astype(np.float64).reshape(len(reference) if reference.ndim else 1, -1)
    error = wanted - other.astype(np.float64).reshape(wanted.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (wanted**2).sum(axis=1) / (error**2).sum(axis=1)
        mean = float(np.mean(10.0 * np.log10(ratios)))
    return mean if math.isfinite(mean) else None
