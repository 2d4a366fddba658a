"""Apply a plan to the float graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.backends import backend_for
from segquant_trt.backends.emission import array_keys
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.frozen_stamp import fallback_path, stamp_frozen_steps
from segquant_trt.graph.hoisted_stamp import prompt_path, stamp_hoisted_prompt
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.graph.plan_stamp import stamp_plan
from segquant_trt.graph.remove_unused import RemoveUnused, drop_unread_inputs
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import FrozenSteps, GraphFacts, HoistedPrompt, QuantPlan, SitePlan
from segquant_trt.records.files import sha256_file
from segquant_trt.records.scratch import scratch_folder, sync_file
from segquant_trt.rewrite.data import GraphData, StoredCodes, write_data
from segquant_trt.rewrite.fold_divisors import FoldDivisors
from segquant_trt.rewrite.freeze_steps import FreezeSteps
from segquant_trt.rewrite.half import Island, halve
from segquant_trt.rewrite.hoist_prompt import HoistPrompt
from segquant_trt.rewrite.quantize_sites import QuantizeSites

_NO_ARRAYS: Mapping[str, npt.NDArray[np.generic]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """Steps to freeze: distinct float32 values, ascending, and the schedule that they are of."""

    schedule: str
    timesteps: tuple[float, ...]
    fallback: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What is no longer in the main graph; `islands`: what stayed in float32 among float16."""

    frozen: FrozenSteps | None
    hoisted: HoistedPrompt | None
    islands: tuple[Island, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of both."""
        gone = (self.frozen, self.hoisted)
        return tuple(site for part in gone if part is not None for site in part.sites)


def rewrite(
    model_onnx: Path,
    checkpoint: Path,
    facts: GraphFacts,
    plan: QuantPlan,
    out: Path,
    *,
    arrays: Mapping[str, npt.NDArray[np.generic]] = _NO_ARRAYS,
    timestep: str | None = None,
    freezing: Freezing | None = None,
    hoisting: bool = False,
    largest: Mapping[str, float] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Removed:
    """Write the quantised graph to `out` and its data beside it, with the suffix `.weights`.

    Equal inputs give equal bytes. Weights are read, quantised and written one at a time. With a
    fallback, the whole graph lies at `fallback_path(out)`, and what was hoisted at
    `prompt_path(out)`; all share their data.

    Args:
        model_onnx: the float graph.
        checkpoint: the folder that holds the graph's external data.
        facts: what `analyze` found in that graph.
        plan: what to do with every site.
        out: path of the quantised graph.
        arrays: what the plan names by key: divisors, optimised weights, output ranges.
        timestep: the graph input that factors per step follow; the facts' by default.
        freezing: steps for which everything that depends on the timestep alone becomes tables.
        hoisting: whether what a prompt fixes becomes a graph of its own.
        largest: magnitudes of tensors that were seen, for targets that compute in float16: what
            is beyond it stays in float32.
        on_progress: told tensors written and tensors in all.

    Returns:
        What was taken out of the graph.

    Raises:
        SegQuantError: the plan or the facts are of another graph, name an unknown site or an
            impossible scheme, ask for what the target lacks, or for an array that is not there; a
            weight is not finite; a file cannot be read or written; nothing is there to take out.
    """
    digest = sha256_file(model_onnx)
    for owner, wanted in (("plan", plan.onnx_sha256), ("facts", facts.onnx_sha256)):
        if wanted != digest:
            raise SegQuantError(
                f"the {owner} was made for a graph with sha256 {wanted[:12]}..., "
                f"{model_onnx} has {digest[:12]}...",
                hint="run 'segquant-trt analyze', 'calibrate' and 'plan' again for this graph",
            )
    plan.check_sites(site.name for site in facts.sites)
    _check_arrays(plan, arrays)
    source = Weights(load_graph(model_onnx), checkpoint)
    job = _Job(
        facts=facts,
        plan=plan,
        arrays=arrays,
        timestep=timestep or facts.timestep,
        checkpoint=checkpoint,
    )
    model = load_graph(model_onnx)
    frozen = None if freezing is None else job.freeze(model, freezing)
    hoisted, prompt = job.hoist(model, frozen) if hoisting else (None, None)
    removed = Removed(frozen=frozen, hoisted=hoisted)
    graphs = {out: job.quantize(model, removed.sites)}
    if prompt is not None:
        drop_unread_inputs(model)  # here, as scales per step may have come to read one
        graphs[prompt_path(out)] = prompt, GraphData(weights=(), floats=())
    if frozen is not None and frozen.fallback:
        graphs[fallback_path(out)] = job.quantize(load_graph(model_onnx), ())
    with scratch_folder(out) as scratch:
        payload = scratch / out.with_suffix(".weights").name
        with payload.open("wb") as stream:
            writer = PayloadWriter(stream, payload.name, share=len(graphs) > 1)
            codes = StoredCodes(source, arrays, writer)
            for graph, data in graphs.values():
                write_data(graph, source, data, codes, writer, on_progress)
        models = {path: graph for path, (graph, _) in graphs.items()}
        placement = backend_for(plan.target).placement
        if placement.float_type == "float16":
            removed = replace(removed, islands=_halved(models, scratch, payload, largest or {}))
        for path, graph in models.items():
            written = scratch / path.name
            written.write_bytes(graph.SerializeToString(deterministic=True))
            _check(written)
        for earlier in (fallback_path(out), prompt_path(out)):
            earlier.unlink(missing_ok=True)
        for path in (payload, *(scratch / path.name for path in graphs)):
            sync_file(path)
            path.replace(out.with_name(path.name))
    return removed


def _halved(
    models: Mapping[Path, onnx.ModelProto],
    folder: Path,
    payload: Path,
    largest: Mapping[str, float],
) -> tuple[Island, ...]:
    """Make the graphs compute in float16, and their data at `payload`; islands of all of them."""
    found: dict[str, Island] = {}
    with scratch_folder(payload) as inner:
        halved = inner / payload.name
        with halved.open("wb") as stream:
            writer = PayloadWriter(stream, payload.name, share=len(models) > 1)
            for graph in models.values():
                found.update({one.node: one for one in halve(graph, folder, writer, largest)})
        halved.replace(payload)
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    facts: GraphFacts
    plan: QuantPlan
    arrays: Mapping[str, npt.NDArray[np.generic]]
    timestep: str | None
    checkpoint: Path

    def freeze(self, model: onnx.ModelProto, freezing: Freezing) -> FrozenSteps:
        if self.timestep is None:
            raise SegQuantError(
                "no input is known to be the timestep, so no steps can be frozen",
                hint="name it with --timestep",
            )
        FreezeSteps(self.timestep, freezing.timesteps, self.checkpoint).run(model)
        RemoveUnused().run(model)
        gone = self._gone(model)
        if not gone:
            raise SegQuantError(
                f"no GEMM or convolution depends on '{self.timestep}' alone, so freezing steps "
                "would remove nothing",
                hint="leave --freeze-schedule out for this model",
            )
        frozen = FrozenSteps(
            schedule=freezing.schedule,
            timestep=self.timestep,
            timesteps=freezing.timesteps,
            sites=tuple(site.site for site in gone),
            macs_per_sample=sum(site.macs_per_sample for site in gone),
            fallback=freezing.fallback,
        )
        stamp_frozen_steps(model, frozen)
        return frozen

    def hoist(
        self, model: onnx.ModelProto, frozen: FrozenSteps | None
    ) -> tuple[HoistedPrompt, onnx.ModelProto]:
        """Take what a prompt fixes out of the graph; the other graph is stored as it is."""
        before = {site.site for site in self._gone(model)}
        steps = None if frozen is None else frozen.timestep
        hoisting = HoistPrompt(self.facts.sites, self.facts.prompt_inputs, steps, self.checkpoint)
        hoisting.run(model)
        gone = [site for site in self._gone(model) if site.site not in before]
        if not gone:
            raise SegQuantError(
                "no GEMM or convolution depends on prompt inputs alone "
                f"({', '.join(self.facts.prompt_inputs) or 'none is known'}), so hoisting would "
                "remove nothing",
                hint="name them with --prompt-inputs, or leave --hoist-prompt out for this model",
            )
        prompt, found = hoisting.prompt, hoisting.found
        own = {hoisting.row_input, steps}
        macs = sum(site.macs_per_sample for site in gone)
        hoisted = HoistedPrompt(
            inputs=tuple(v.name for v in prompt.graph.input if v.name not in own),
            values=found.values,
            by_step=tuple(name for name in found.values if name in found.by_step),
            row_input=hoisting.row_input,
            sites=tuple(site.site for site in gone),
            macs_per_sample=macs,
            macs_share=macs / (sum(site.macs_per_sample for site in self.plan.sites) or 1),
        )
        stamp_hoisted_prompt(model, hoisted)
        stamp_plan(prompt, self.plan)
        return hoisted, prompt

    def _gone(self, model: onnx.ModelProto) -> list[SitePlan]:
        absent = {site.name for site in self.facts.sites}
        absent -= {node_name(node) for node in model.graph.node}
        return [site for site in self.plan.sites if site.site in absent]

    def quantize(
        self, model: onnx.ModelProto, absent: tuple[str, ...]
    ) -> tuple[onnx.ModelProto, GraphData]:
        """Edit the graph in place; the plan's entries for sites that are `absent` do not count."""
        stamp_plan(model, self.plan)
        left = replace(
            self.plan, sites=tuple(site for site in self.plan.sites if site.site not in absent)
        )
        placement = backend_for(self.plan.target).placement
        sites = QuantizeSites(
            self.facts, left, placement, self.arrays, self.timestep, self.checkpoint
        )
        sites.run(model)
        RemoveUnused().run(model)
        coders = placement.input_channels
        folding = FoldDivisors(sites.smoothed, sites.data, self.checkpoint, coders=coders)
        folding.run(model)
        RemoveUnused().run(model)
        return model, folding.data


def _check_arrays(plan: QuantPlan, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    for site in plan.sites:
        missing = [key for key in array_keys(site) if key not in arrays]
        if missing:
            raise SegQuantError(
                f"the plan names the array '{missing[0]}' at site '{site.site}', "
                "which scores.safetensors does not hold",
                hint="undo the edit of the plan, or run 'segquant-trt score' and 'plan' again",
            )


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise SegQuantError(
            f"the quantised graph is not valid ONNX: {str(error).splitlines()[0]}",
            hint="this is a defect of the rewrite stage; please report it with the plan",
        ) from error
