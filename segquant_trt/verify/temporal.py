"""The error of temporal features: what the timestep, and a prompt with it, turns into.

A component (TFMQ-DM's temporal information block; found by dependence, not by layer names) is the
last site of each path from the timestep to the rest of the network that has one row per sample.
Its output is compared between the float graph and the same graph with the plan's codes at all
sites of that part that the bundle still computes. Tables hold the float graph's own values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx

from segquant_trt.backends.emission import Arrays
from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.remove_unused import RemoveUnused, part_for
from segquant_trt.graph.view import GraphView
from segquant_trt.graph.wiring import node_name, read_tensors
from segquant_trt.models.loop import Array
from segquant_trt.records import FrozenSteps, HoistedPrompt, LinearSite, QuantPlan
from segquant_trt.records.temporal import Held, TemporalFeature, TemporalStep
from segquant_trt.verify.site_errors import FloatModel, with_one_site

_MOST_STEPS = 50


def temporal_features(
    model: FloatModel,
    plan: QuantPlan,
    arrays: Arrays,
    inputs: Mapping[str, Array],
    timesteps: Sequence[float],
    *,
    timestep: str,
    frozen: FrozenSteps | None,
    hoisted: HoistedPrompt | None,
    threads: int | None = None,
) -> tuple[TemporalFeature, ...]:
    """The error of every component at `timesteps`, in graph order.

    Args:
        model: the float model.
        plan: what is done to the sites.
        arrays: what the plan names by key.
        inputs: of one call; its prompts are used, at every timestep.
        timesteps: where to compare.
        timestep: the input.
        frozen: what the bundle has tables of.
        hoisted: what the bundle computes once per prompt.
        threads: of the runtime.
    """
    components = find_components(model, timestep)
    tables = () if frozen is None else frozen.sites
    once = () if hoisted is None else hoisted.sites
    coded = {s.site for s in plan.sites if not s.treatment.is_float} - {*tables, *once}
    part = part_for(model.graph, [site.output for site in components])
    errors = _errors(
        _Compared(model, plan, arrays, timestep, threads),
        part,
        components,
        coded,
        inputs,
        _spread(timesteps),
    )
    joint = {*model.facts.prompt_and_timestep}
    found = []
    for site in components:
        on: Literal["timestep", "prompt and timestep"] = (
            "prompt and timestep" if site.name in joint else "timestep"
        )
        held = _held(site.name, tables, once, coded)
        found.append(_feature(site, on, held, errors.get(site.output, ())))
    return tuple(found)


def find_components(model: FloatModel, timestep: str) -> tuple[LinearSite, ...]:
    """The sites that hand temporal features to the rest of the network."""
    view = GraphView.of(model.graph, model.folder)
    temporal = frozenset((timestep, *model.facts.prompt_inputs))
    sites = {site.output: site for site in model.facts.sites}

    def belongs(name: str) -> bool:
        taint = view.dependence.get(name, frozenset())
        return timestep in taint and taint <= temporal

    last: dict[str, frozenset[str]] = {}
    found: set[str] = set()
    for node in view.wiring.nodes:
        behind = frozenset[str]().union(*(last.get(name, ()) for name in read_tensors(node)))
        for name in filter(None, node.output):
            if belongs(name) and name in sites and view.has_one_row(name):
                last[name] = frozenset((name,))
            elif belongs(name):
                last[name] = behind
        if not all(belongs(name) for name in node.output if name):
            found |= behind
    found.update(*(last.get(name, ()) for name in view.wiring.graph_outputs))
    return tuple(site for output, site in sites.items() if output in found)


class _Compared:
    """The float graph's part, and the same with codes."""

    def __init__(
        self,
        model: FloatModel,
        plan: QuantPlan,
        arrays: Arrays,
        timestep: str,
        threads: int | None,
    ) -> None:
        self.model = model
        self.timestep = timestep
        self.threads = threads
        self._plans = {site.site: site for site in plan.sites}
        self._arrays = arrays

    def coded(self, part: onnx.ModelProto, sites: Sequence[LinearSite]) -> onnx.ModelProto:
        weights = Weights(self.model.graph, self.model.folder)
        for site in sites:
            part = with_one_site(
                part,
                weights,
                site,
                self._plans[site.name],
                self._arrays,
                self.timestep,
                self.model.folder,
            )
        RemoveUnused().run(part)
        return part


def _errors(
    compared: _Compared,
    part: onnx.ModelProto,
    components: Sequence[LinearSite],
    coded: Collection[str],
    inputs: Mapping[str, Array],
    timesteps: Sequence[float],
) -> dict[str, list[TemporalStep]]:
    """By feature; empty where no site of the part is coded."""
    present = {node_name(node) for node in part.graph.node}
    sites = [s for s in compared.model.facts.sites if s.name in coded and s.name in present]
    if not sites or not components:
        return {}
    names = [site.output for site in components]
    folder, threads = compared.model.folder, compared.threads
    reference = float_session(part, folder, threads=threads)
    other = float_session(compared.coded(part, sites), folder, threads=threads)
    given = {value.name for value in part.graph.input}
    feeds = {name: array for name, array in inputs.items() if name in given}
    steps: dict[str, list[TemporalStep]] = {name: [] for name in names}
    for time in timesteps:
        feeds[compared.timestep] = np.full_like(inputs[compared.timestep], time)
        wanted, found = reference.run(feeds, names), other.run(feeds, names)
        for name in names:
            steps[name].append(_step(time, wanted[name], found[name]))
    return steps


def _step(time: float, wanted: Array, found: Array) -> TemporalStep:
    reference = np.asarray(wanted, dtype=np.float64).reshape(len(wanted), -1)
    approximation = np.asarray(found, dtype=np.float64).reshape(len(wanted), -1)
    noise = np.linalg.norm(reference - approximation, axis=1)
    signal = np.maximum(np.linalg.norm(reference, axis=1), np.finfo(np.float64).tiny)
    relative = noise / signal
    exact = not relative.any()
    decibels = -20.0 * np.log10(np.maximum(relative, 1e-10))
    return TemporalStep(
        timestep=time,
        sqnr_db=None if exact else float(decibels.mean()),
        relative_error=float(relative.mean()),
    )


def _feature(
    site: LinearSite,
    depends_on: Literal["timestep", "prompt and timestep"],
    held: Held,
    steps: Sequence[TemporalStep],
) -> TemporalFeature:
    decibels = [step.sqnr_db for step in steps if step.sqnr_db is not None]
    relative = [step.relative_error for step in steps]
    return TemporalFeature(
        site=site.name,
        module=site.module,
        depends_on=depends_on,
        held=held,
        sqnr_db_mean=float(np.mean(decibels)) if decibels else None,
        sqnr_db_worst=min(decibels, default=None),
        relative_error_mean=float(np.mean(relative)) if decibels else 0.0,
        relative_error_worst=max(relative) if decibels else 0.0,
        steps=tuple(steps) if decibels else (),
    )


def _held(
    site: str, tables: Collection[str], once: Collection[str], coded: Collection[str]
) -> Held:
    if site in tables:
        return "table"
    if site in once:
        return "once per prompt"
    return "coded" if site in coded else "float"


def _spread(timesteps: Sequence[float]) -> list[float]:
    distinct = sorted(set(timesteps), reverse=True)
    picked = np.linspace(0, len(distinct) - 1, min(len(distinct), _MOST_STEPS)).round().astype(int)
    return [distinct[index] for index in picked]
