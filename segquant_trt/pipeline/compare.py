"""Set bundles, ONNX files, engines and torch modules side by side, with the same inputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.bench.cases import (
    Interface,
    Sweep,
    batch_of,
    cases_of,
    check_alike,
    lengths_of_shapes,
    made_inputs,
    merged,
    read_inputs,
)
from segquant_trt.bench.compare import Case, compare_case
from segquant_trt.bench.export_times import export_times
from segquant_trt.bench.hardware import versions
from segquant_trt.bench.rounds import Effort, Timings
from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline.beside import ceilings_of, kernels_of, memory_of
from segquant_trt.pipeline.contestants import Asked, asked_for, run_of, unique_names
from segquant_trt.pipeline.opening import Contestant, Machine, open_contestant
from segquant_trt.records.comparison import CaseFigures, Comparison, SubjectFacts
from segquant_trt.records.files import atomic_write_json, writing_failed
from segquant_trt.records.hardware import hardware
from segquant_trt.records.progress import Progress, Silent
from segquant_trt.records.recordings import write_shard
from segquant_trt.records.step_rows import missed_steps, on_frozen_steps

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array

PLOT_SUFFIXES = (".svg", ".png", ".pdf")
_BUSY = 0.5  # of the cores, by the load average


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What is compared and how.

    Args:
        subjects: words that name subjects, see `contestants`.
        against: more of them; the first is what ratios are relative to.
        axes: lengths to sweep, by axis.
        shapes: of inputs by name, in place of `axes`.
        inputs: a safetensors file with one call's inputs, in place of both.
        cuda_graphs: whether engines replay their calls as one launch.
        top: kernels to list per subject; 0 profiles nothing.
        memory: whether each subject is opened once more, in a process of its own.
    """

    subjects: tuple[str, ...]
    against: tuple[str, ...] = ()
    axes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: Path | None = None
    effort: Effort = field(default_factory=Effort)
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    cuda_graphs: bool = False
    top: int = 0
    memory: bool = True

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise SegQuantError(
                f"threads is {self.threads}; allowed: a whole number from 1",
                hint="leave --threads out to use all cores",
            )
        if self.top < 0:
            raise SegQuantError(
                f"profile is {self.top}; allowed: a whole number from 0",
                hint="--profile 10 lists the ten costliest kernels of each subject",
            )
        given = [
            name
            for name, value in (
                ("--inputs", self.inputs),
                ("--shapes", self.shapes),
                ("--batch, --height, --width and --axis", self.axes),
            )
            if value
        ]
        if len(given) > 1:
            raise SegQuantError(
                f"{given[0]} and {given[1]} both say which sizes are compared",
                hint="give one of them",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Files to write; None for those that nobody asked for."""

    record: Path | None = None
    times: Path | None = None
    plot: Path | None = None
    page: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be written before minutes of timing.

        Raises:
            SegQuantError: a folder that cannot be written, a folder in a file's place, or a plot
                of unknown format.
        """
        if self.plot is not None and self.plot.suffix not in PLOT_SUFFIXES:
            raise SegQuantError(
                f"{self.plot} is no plot by its name; allowed: {', '.join(PLOT_SUFFIXES)}",
                hint="give the file one of these suffixes",
            )
        for path in (self.record, self.times, self.plot, self.page):
            if path is not None:
                _check_writable(path)


def compare(
    request: ComparisonRequest, outputs: Outputs | None = None, *, progress: Progress | None = None
) -> tuple[Comparison, tuple[Path, ...]]:
    """Open all subjects, time them at every size, and write what was asked for.

    Returns:
        The comparison, and the files that were written.

    Raises:
        SegQuantError: a subject cannot be opened or does not take the others' inputs, or a file
            cannot be written.
    """
    outputs, progress = outputs or Outputs(), progress or Silent()
    outputs.check()
    asked, reference = _asked(request)
    _note_company(progress)
    with tempfile.TemporaryDirectory(prefix="segquant-bench-") as scratch:
        machine = Machine(
            scratch=Path(scratch),
            threads=request.threads,
            device=request.device,
            dtype=request.dtype,
            cuda_graphs=request.cuda_graphs,
        )
        names = unique_names(asked)
        contestants: list[Contestant] = []
        for one, name in zip(asked, names, strict=True):
            progress.note(f"opening {name}")
            contestants.append(open_contestant(one, name, machine))
        for other in contestants[1:]:
            check_alike((names[0], contestants[0].interface), (other.name, other.interface))
        comparison, timings = _measured(
            contestants, names[reference], request, machine, progress=progress
        )
    written = _written(comparison, timings, outputs)
    return comparison, written


def _asked(request: ComparisonRequest) -> tuple[list[Asked], int]:
    """All subjects, and which of them is the reference."""
    subjects = asked_for(request.subjects)
    run = next((found for one in subjects if (found := run_of(one)) is not None), None)
    against = asked_for(request.against, beside=run)
    if not against and run is not None and all(one.kind == "bundle" for one in subjects):
        against = [Asked(kind="float", where=str(run))]
    chosen = list(dict.fromkeys((*subjects, *against)))
    return chosen, chosen.index(against[0]) if against else 0


def _measured(
    contestants: Sequence[Contestant],
    reference: str,
    request: ComparisonRequest,
    machine: Machine,
    *,
    progress: Progress,
) -> tuple[Comparison, dict[tuple[str, str], Timings]]:
    cases = _cases(contestants, request)
    figures: list[CaseFigures] = []
    timings: dict[tuple[str, str], Timings] = {}
    notes: list[str] = []
    for number, case in enumerate(cases, start=1):
        prepared = replace(case, ceilings=ceilings_of(contestants, case, notes))
        label = f"bench {number}/{len(cases)}"
        found, all_timings = compare_case(
            [one.subject for one in contestants],
            reference,
            prepared,
            request.effort,
            on_run=partial(progress.update, label),
        )
        figures.append(found)
        timings |= {(found.title, name): value for name, value in all_timings.items()}
    facts = [
        _facts(one, cases[0].inputs, request, machine, progress=progress) for one in contestants
    ]
    comparison = Comparison(
        reference=reference,
        subjects=tuple(facts),
        cases=tuple(figures),
        threads=request.threads,
        seed=request.effort.seed,
        hardware=hardware(),
        versions=versions(),
        notes=tuple(dict.fromkeys(notes)),
    )
    return comparison, timings


def _cases(contestants: Sequence[Contestant], request: ComparisonRequest) -> list[Case]:
    interface = merged(one.interface for one in contestants)
    if request.inputs is not None:
        return [_case(contestants, interface, {}, read_inputs(request.inputs, interface))]
    axes = lengths_of_shapes(interface, request.shapes) or request.axes
    return [
        _case(
            contestants,
            interface,
            lengths,
            made_inputs(interface, lengths, seed=request.effort.seed),
        )
        for lengths in cases_of(interface, Sweep(axes=axes))
    ]


def _case(
    contestants: Sequence[Contestant],
    interface: Interface,
    lengths: Mapping[str, int],
    inputs: Mapping[str, Array],
) -> Case:
    frozen = [one for one in contestants if one.frozen is not None]
    if frozen:
        inputs = on_frozen_steps(inputs, frozen[0].frozen)
    for one in frozen[1:]:
        assert one.frozen is not None
        if missed_steps(one.frozen, inputs[one.frozen.timestep]).size:
            raise SegQuantError(
                f"{frozen[0].name} and {one.name} are frozen to schedules that share no such "
                "timestep, so one of them would run its fallback",
                hint="compare bundles of one schedule, or give a shared timestep with --inputs",
            )
    return Case(lengths=lengths, inputs=inputs, batch=batch_of(interface, inputs))


def _facts(
    one: Contestant,
    inputs: Mapping[str, Array],
    request: ComparisonRequest,
    machine: Machine,
    *,
    progress: Progress,
) -> SubjectFacts:
    resident: int | None = None
    device: int | None = None
    if request.memory:
        progress.note(f"memory of {one.name}, in a process of its own")
        stored = machine.scratch / "inputs.safetensors"
        write_shard(stored, inputs)
        resident, device = memory_of(one.asked, one.name, machine, stored)
    kernels = kernels_of(one, inputs, top=request.top, machine=machine) if request.top else ()
    quality = one.quality
    return SubjectFacts(
        subject=one.name,
        kind=one.asked.kind,
        source=one.source or Path(one.asked.where).name,
        size_bytes=one.size_bytes,
        macs_integer_share=one.macs_integer_share,
        sqnr_db_mean=None if quality is None else quality.sqnr_db_mean,
        latent_sqnr_db=None if quality is None else quality.latent_sqnr_db,
        peak_memory_bytes=resident,
        device_memory_bytes=device,
        kernels=kernels,
    )


def _written(
    comparison: Comparison, timings: Mapping[tuple[str, str], Timings], outputs: Outputs
) -> tuple[Path, ...]:
    from segquant_trt.records.codec import to_plain
    from segquant_trt.report.comparison_page import write_page
    from segquant_trt.report.comparison_plot import write_plot

    written: list[Path] = []
    if outputs.times is not None:
        written += export_times(outputs.times, timings)
    if outputs.plot is not None:
        write_plot(outputs.plot, comparison)
        written.append(outputs.plot)
    if outputs.page is not None:
        write_page(outputs.page, comparison)
        written.append(outputs.page)
    if outputs.record is not None:
        plain: dict[str, Any] = to_plain(comparison)
        atomic_write_json(outputs.record, plain)
        written.append(outputs.record)
    return tuple(written)


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise SegQuantError(f"{path} is a folder; a file is wanted", hint="add a file's name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise writing_failed(path, error) from error


def _note_company(progress: Progress) -> None:
    cores = os.cpu_count() or 1
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > _BUSY * cores:
        progress.note(
            f"this machine is busy (load {load:.1f} on {cores} cores): ratios hold, for subjects "
            "take turns, but times are longer than on a quiet one"
        )
