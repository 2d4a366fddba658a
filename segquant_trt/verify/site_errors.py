"""Which sites cost most: the denoiser's output with one site quantised at a time.

One site's fake quantisation is written into the float graph (QuantizeLinear and DequantizeLinear
before its input, its weight replaced by what the codes decode to), so that the figure is the same
whatever runtime the bundle is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from segquant_trt.backends.denoise import float_denoise
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.weight_layout import as_rows, from_rows
from segquant_trt.graph.wiring import node_name
from segquant_trt.models.loop import Array, Float32
from segquant_trt.records import GraphFacts, LinearSite, QuantPlan, SiteError, SitePlan
from segquant_trt.schemes import encoding, quantize_weight
from segquant_trt.verify.figures import sqnr_db


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
    threads: int | None = None,
    on_site: Callable[[int, int], None] | None = None,
) -> tuple[SiteError, ...]:
    """SQNR of the output in dB when one site alone is quantised, worst first."""
    weights = Weights(model.graph, model.folder)
    facts = {site.name: site for site in model.facts.sites}

    def run(graph: onnx.ModelProto) -> list[Float32]:
        denoise = float_denoise(graph, model.folder, threads=threads)
        return [denoise(inputs) for inputs in batches]

    references = run(model.graph)
    planned = [site for site in plan.sites if not site.treatment.is_float]
    errors = []
    for index, site in enumerate(planned):
        outputs = run(with_one_site(model.graph, weights, facts[site.site], site))
        decibels = [sqnr_db(a, b) for a, b in zip(references, outputs, strict=True)]
        mean = float(np.mean(np.concatenate(decibels)))
        errors.append(SiteError(site=site.site, module=site.module, sqnr_db=mean))
        if on_site is not None:
            on_site(index + 1, len(planned))
    return tuple(sorted(errors, key=lambda error: (error.sqnr_db, error.site)))


def with_one_site(
    model: onnx.ModelProto, weights: Weights, site: LinearSite, plan: SitePlan
) -> onnx.ModelProto:
    """A copy of the float graph with fake quantisation at `site` alone."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    position, node = next(
        (index, node) for index, node in enumerate(graph.node) if node_name(node) == site.name
    )
    coded = encoding(plan.treatment.segments[0].activation, site=site.name)
    assert coded is not None
    assert plan.treatment.weight is not None
    rows = as_rows(weights.read_float32(site.weight), site.weight_layout)
    codes = quantize_weight(rows, plan.treatment.weight)
    decoded = from_rows(codes.dequantize(), site.weight_layout, weights.shape(site.weight))
    if node.op_type != "Conv":
        transposed = node.op_type == "Gemm" and any(
            attribute.name == "transB" and attribute.i for attribute in node.attribute
        )
        decoded = decoded if (site.weight_layout == "NK") == transposed else decoded.T
    names = [f"{site.name}/verify/{part}" for part in ("scale", "zero", "weight", "code", "value")]
    scale, zero, weight, code, value = names
    arrays: dict[str, Array] = {
        scale: np.array(coded.scale, dtype=np.float32),
        zero: np.array(coded.zero_point, dtype=np.uint8),
        weight: np.ascontiguousarray(decoded),
    }
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    pair = (
        helper.make_node("QuantizeLinear", [site.activation, scale, zero], [code]),
        helper.make_node("DequantizeLinear", [code, scale, zero], [value]),
    )
    node.input[0], node.input[1] = value, weight
    for added in reversed(pair):
        graph.node.insert(position, added)
    return copy
