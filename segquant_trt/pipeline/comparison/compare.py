"""Set bundles, ONNX files, engines and torch modules side by side, with the same inputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
from segquant_trt.bench.hardware import versions
from segquant_trt.bench.rounds import Effort, Timings
from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline.comparison.asked import Asked, asked_for, run_of, unique_names
from segquant_trt.pipeline.comparison.beside import ceilings_of, kernels_of, memory_of
from segquant_trt.pipeline.comparison.contestant import Contestant, Machine
from segquant_trt.pipeline.comparison.opening import open_contestant
from segquant_trt.pipeline.comparison.outputs import Outputs
from segquant_trt.records.comparison import CaseFigures, Comparison, SubjectFacts
from segquant_trt.records.hardware import hardware
from segquant_trt.records.progress import Progress, Silent
from segquant_trt.records.recordings import write_shard
from segquant_trt.records.step_rows import on_frozen_steps

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array

_GPU_PACKAGES = ("tensorrt", "torchao", "nvidia-modelopt")
_BUSY = 0.5  # of the cores, by the load average


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """What is compared and how.

    Args:
        subjects: words that name subjects, see `asked`.
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
    return comparison, outputs.write(comparison, timings)


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
        _facts(one, cases[0].inputs, request, machine, notes=notes, progress=progress)
        for one in contestants
    ]
    comparison = Comparison(
        reference=reference,
        subjects=tuple(facts),
        cases=tuple(figures),
        threads=request.threads,
        seed=request.effort.seed,
        hardware=_hardware(contestants),
        versions=versions(_GPU_PACKAGES),
        notes=tuple(dict.fromkeys(notes)),
    )
    return comparison, timings


def _cases(contestants: Sequence[Contestant], request: ComparisonRequest) -> list[Case]:
    interface = merged(one.interface for one in contestants)
    if request.inputs is not None:
        given = read_inputs(request.inputs, interface)
        shapes = {name: tuple(array.shape) for name, array in given.items()}
        lengths = {axis: found[0] for axis, found in lengths_of_shapes(interface, shapes).items()}
        return [_case(contestants, interface, lengths, given)]
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
    inputs = on_shared_steps(contestants, inputs)
    return Case(lengths=lengths, inputs=inputs, batch=batch_of(interface, inputs))


def on_shared_steps(
    contestants: Sequence[Contestant], inputs: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Timesteps moved to the nearest that every frozen bundle has: else one runs its fallback.

    Raises:
        SegQuantError: they have none in common.
    """
    frozen = {one.name: one.frozen for one in contestants if one.frozen is not None}
    if not frozen:
        return inputs
    first, *others = frozen.values()
    shared = set(first.timesteps).intersection(*(other.timesteps for other in others))
    if not shared:
        raise SegQuantError(
            f"{' and '.join(frozen)} are frozen to schedules that share no timestep, so one of "
            "them would run its fallback",
            hint="compare bundles of one schedule",
        )
    return on_frozen_steps(inputs, replace(first, timesteps=tuple(sorted(shared))))


def _facts(
    one: Contestant,
    inputs: Mapping[str, Array],
    request: ComparisonRequest,
    machine: Machine,
    *,
    notes: list[str],
    progress: Progress,
) -> SubjectFacts:
    resident: int | None = None
    device: int | None = None
    if request.memory:
        progress.note(f"memory of {one.name}, in a process of its own")
        stored = machine.scratch / "inputs.safetensors"
        write_shard(stored, inputs)
        try:
            resident, device = memory_of(one.asked, one.name, machine, stored)
        except SegQuantError as error:  # what was timed is not thrown away for that
            notes.append(error.what)
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


def _hardware(contestants: Sequence[Contestant]) -> dict[str, str]:
    """This machine, and its first GPU where a subject runs on one."""
    found = hardware()
    if any(one.subject.pci_bus_id is not None for one in contestants):
        from segquant_trt.backends.tensorrt.device import find_device

        device = find_device()
        found |= {
            "gpu": device.name,
            "compute_capability": device.capability,
            "driver": device.driver or "unknown",
        }
    return found


def _note_company(progress: Progress) -> None:
    cores = os.cpu_count() or 1
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > _BUSY * cores:
        progress.note(
            f"this machine is busy (load {load:.1f} on {cores} cores): ratios hold, for subjects "
            "take turns, but times are longer than on a quiet one"
        )
