"""What a comparison says of its subjects beside times: ceilings, memory, costliest kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.backends.hoisting import open_whole
from segquant_trt.backends.onnxruntime import OnnxRuntime, ProfilingSession
from segquant_trt.bench.cases import batch_of
from segquant_trt.bench.ceiling import ceiling_of
from segquant_trt.bench.compare import Case
from segquant_trt.bench.kernels import kernel_times
from segquant_trt.bench.published import published_for
from segquant_trt.bench.work import IsCoded, has_codes, repeats_of, work_of
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.pipeline.comparison.asked import Asked
from segquant_trt.pipeline.comparison.contestant import Contestant, Graph, Machine
from segquant_trt.records import QuantPlan
from segquant_trt.records.bundle_layout import PLAN
from segquant_trt.records.child import child_environment
from segquant_trt.records.codec import read_record
from segquant_trt.records.comparison import Ceiling, KernelTime

if TYPE_CHECKING:
    from segquant_trt.backends import Runner
    from segquant_trt.models.loop import Array

_PROFILED_CALLS = 8
_ZOO = "zoo:"


def ceilings_of(
    contestants: Sequence[Contestant], case: Case, notes: list[str]
) -> tuple[Ceiling, ...]:
    """How much faster 8-bit products can make each coded graph, and a graph's model at its size.

    Where no graph is coded: what coding all weights of the first one would allow. `notes` gets a
    sentence for a graph whose work cannot be counted.
    """
    found: list[Ceiling] = []
    with_graph = [one for one in contestants if one.graph is not None]
    coded = [one for one in with_graph if one.graph and has_codes(load_graph(one.graph.model))]
    for one in coded or with_graph[:1]:
        graph = one.graph
        assert graph is not None
        of = one.name if coded else f"{one.name}, were all its weights coded"
        try:
            counting = _Counting(
                graph=graph,
                coded=None if coded else _every_site,
                repeats=_repeats(one, graph) if coded else None,
            )
            found.append(counting.ceiling(_shapes(case.inputs), of))
            found += _at_its_own_size(one, counting, case)
        except SegQuantError as error:
            notes.append(f"no ceiling for {one.name}: {error.what}")
    found += [ceiling for one in contestants for ceiling in _of_published(one)]
    return _joined(dict.fromkeys(found))


def _joined(ceilings: Iterable[Ceiling]) -> tuple[Ceiling, ...]:
    """One entry for all subjects of equal shares."""
    names: dict[Ceiling, list[str]] = {}
    for ceiling in ceilings:
        names.setdefault(replace(ceiling, of=""), []).append(ceiling.of)
    return tuple(replace(ceiling, of=", ".join(of)) for ceiling, of in names.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counting:
    """How a graph's products are counted; see `work_of`."""

    graph: Graph
    coded: IsCoded | None
    repeats: Mapping[str, float] | None

    def ceiling(self, shapes: Mapping[str, tuple[int, ...]], of: str) -> Ceiling:
        work = work_of(
            load_graph(self.graph.model),
            shapes,
            folder=self.graph.folder,
            coded=self.coded,
            repeats=self.repeats,
        )
        return ceiling_of(work, of)


def _every_site(_: str) -> bool:
    return True


def _shapes(inputs: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in inputs.items()}


def _at_its_own_size(one: Contestant, counting: _Counting, case: Case) -> list[Ceiling]:
    """The same at typical lengths, where another size is timed; batch does not matter."""
    typical = _typical(one, batch_of(one.interface, case.inputs))
    shapes = _shapes_at(one, typical)
    if not one.interface.axes or shapes == _shapes(case.inputs):
        return []
    size = ", ".join(f"{axis} {length}" for axis, length in typical.items() if axis != "batch")
    return [counting.ceiling(shapes, f"{one.name} at its typical size ({size})")]


def _repeats(one: Contestant, graph: Graph) -> Mapping[str, float] | None:
    """By site, how many times over a bundle's plan has its work done; None without a plan."""
    if one.asked.kind != "bundle":
        return None
    plan = read_record(graph.folder / PLAN, QuantPlan)
    planned = {site.site: site.macs_per_sample for site in plan.sites}
    shapes = _shapes_at(one, _typical(one, 1))
    return repeats_of(load_graph(graph.model), shapes, planned, folder=graph.folder)


def _typical(one: Contestant, batch: int) -> dict[str, int]:
    return {axis.name: axis.typical for axis in one.interface.axes} | {"batch": batch}


def _shapes_at(one: Contestant, lengths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return {
        spec.name: tuple(
            lengths.get(axis, 0) if isinstance(axis, str) else axis for axis in spec.shape
        )
        for spec in one.interface.inputs
    }


def _of_published(one: Contestant) -> list[Ceiling]:
    """A small model that ships stands for a published one."""
    if one.source is None or not one.source.startswith(_ZOO):
        return []
    published = published_for(one.interface.class_name)
    if published is None:
        return []
    of = f"{published.name}, which small models of the zoo stand for, were all its blocks coded"
    return [ceiling_of(published.work(), of)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneCall:
    """What a child process opens and calls."""

    subject: Asked
    name: str
    machine: Machine
    inputs: Path

    def arguments(self) -> str:
        """For the child's command line."""
        machine = self.machine
        return json.dumps(
            {
                "kind": self.subject.kind,
                "where": self.subject.where,
                "name": self.name,
                "scratch": str(machine.scratch),
                "threads": machine.threads,
                "device": machine.device,
                "dtype": machine.dtype,
                "cuda_graphs": machine.cuda_graphs,
                "inputs": str(self.inputs),
            }
        )


def memory_of(asked: Asked, name: str, machine: Machine, inputs: Path) -> tuple[int, int | None]:
    """Peak resident bytes of a fresh process, and the most it held on a GPU where torch tells.

    Raises:
        SegQuantError: the process failed; its last line says why.
    """
    call = OneCall(subject=asked, name=name, machine=machine, inputs=inputs)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "segquant_trt.pipeline.comparison.one_call",
            str(os.getpid()),
            call.arguments(),
        ],
        capture_output=True,
        env=child_environment(),
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise SegQuantError(
            f"measuring the memory of {name} failed: {last[0]}",
            hint="free some memory, or leave this measurement out with --no-memory",
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    return int(answer["resident"]), answer["device"]


def kernels_of(
    one: Contestant, inputs: Mapping[str, Array], *, top: int, machine: Machine
) -> tuple[KernelTime, ...]:
    """The costliest nodes of a graph that ONNX Runtime runs; nothing of other subjects."""
    graph = one.graph
    if graph is None or one.runtime != "onnxruntime":
        return ()
    sessions: list[ProfilingSession] = []

    def opened(path: Path) -> Runner:
        if path != graph.model:
            return OnnxRuntime().open(path, threads=machine.threads)
        prefix = machine.scratch / "profile"
        sessions.append(ProfilingSession(path, graph.folder, prefix, threads=machine.threads))
        return sessions[-1]

    prompt = graph.prompt or graph.model
    runner = open_whole(graph.model, prompt, opened)
    for _ in range(_PROFILED_CALLS):
        runner.run({name: _cast(array, runner, name) for name, array in inputs.items()})
    return kernel_times(sessions[0].finish(), top=top)


def _cast(array: Array, runner: Runner, name: str) -> Array:
    """An input in the type that the graph takes."""
    wanted = next((spec.dtype for spec in runner.inputs if spec.name == name), array.dtype.name)
    return array.astype(wanted, copy=False)
