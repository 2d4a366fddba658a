"""Which sites cost most: the denoiser's output with one site quantised at a time.

One site's treatment is written into the float graph, its weights replaced by what the codes decode
to, so that the figure is the same whatever runtime the bundle is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import numpy_helper

from segquant_trt.backends.denoise import float_denoise
from segquant_trt.backends.emission import (
    Arrays,
    Builder,
    SiteEmitter,
    Structure,
    float_tensor,
    site_codes,
    stored_weight,
)
from segquant_trt.backends.placement import LITERAL
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.names import FreshNames
from segquant_trt.graph.wiring import node_name
from segquant_trt.models.loop import Array, Float32
from segquant_trt.records import GraphFacts, LinearSite, QuantPlan, SiteError, SitePlan
from segquant_trt.verify.figures import sqnr_db

_NO_ARRAYS: Arrays = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """The float graph (opened without its weights), its facts, and where its weights are."""

    graph: onnx.ModelProto
    facts: GraphFacts
    folder: Path


def site_errors(
    model: FloatModel,
    plan: QuantPlan,
    batches: Sequence[Mapping[str, Array]],
    *,
    arrays: Arrays = _NO_ARRAYS,
    timestep: str | None = None,
    absent: Collection[str] = (),
    threads: int | None = None,
    on_site: Callable[[int, int], None] | None = None,
) -> tuple[SiteError, ...]:
    """SQNR of the output in dB when one site alone is quantised, worst first.

    Args:
        model: the float model.
        plan: what is done to the sites.
        batches: inputs of the denoiser.
        arrays: what the plan names by key.
        timestep: the graph input for factors per step; the facts' by default.
        absent: sites that the bundle does not execute.
        threads: of the runtime.
        on_site: told sites done and sites in all.
    """
    timestep = timestep or model.facts.timestep
    weights = Weights(model.graph, model.folder)
    facts = {site.name: site for site in model.facts.sites}

    def run(graph: onnx.ModelProto) -> list[Float32]:
        denoise = float_denoise(graph, model.folder, threads=threads)
        return [denoise(inputs) for inputs in batches]

    references = run(model.graph)
    planned = [
        site for site in plan.sites if not site.treatment.is_float and site.site not in absent
    ]
    errors = []
    for index, site in enumerate(planned):
        changed = with_one_site(
            model.graph, weights, facts[site.site], site, arrays, timestep, model.folder
        )
        outputs = run(changed)
        decibels = [sqnr_db(a, b) for a, b in zip(references, outputs, strict=True)]
        mean = float(np.mean(np.concatenate(decibels)))
        errors.append(SiteError(site=site.site, module=site.module, sqnr_db=mean))
        if on_site is not None:
            on_site(index + 1, len(planned))
    return tuple(sorted(errors, key=lambda error: (error.sqnr_db, error.site)))


def with_one_site(
    model: onnx.ModelProto,
    weights: Weights,
    site: LinearSite,
    plan: SitePlan,
    arrays: Arrays,
    timestep: str | None,
    folder: Path,
) -> onnx.ModelProto:
    """A copy of the float graph with fake quantisation at `site` alone.

    Args:
        model: the float graph.
        weights: its initializers.
        site: the site.
        plan: what is done to it.
        arrays: what the plan names by key.
        timestep: the graph input for factors per step.
        folder: where the graph's external data is.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    builder = Builder(FreshNames(copy.graph))
    emitter = SiteEmitter(builder, Structure(model, folder), LITERAL, arrays, timestep)
    for node in model.graph.node:
        if node_name(node) != site.name:
            builder.nodes.append(node)
        elif site.op == "Conv":
            emitter.convolution(node, site, plan)
        else:
            emitter.linear(node, site, plan)
    values = {tensor.name: float_tensor(tensor, weights) for tensor in emitter.floats}
    found = site_codes(site, plan.treatment, weights, arrays)
    for weight in emitter.weights:
        values[weight.decoded] = stored_weight(weight, found, weights).decoded(
            weight.channel_axis, weight.block
        )
    nodes = [node for node in builder.nodes if node.output[0] not in values]
    rebuilt = onnx.GraphProto(node=nodes, initializer=builder.constants)
    rebuilt.initializer.extend(numpy_helper.from_array(a, name) for name, a in values.items())
    del copy.graph.node[:]
    copy.graph.MergeFrom(rebuilt)
    return copy
