"""The floor under every INT8 method: weights rounded, everything else in float.

ONNX Runtime has no kernel for such a product, so the rounded weights are decoded beforehand.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from benchmarks.ablation.subject import Subject
from segquant_trt.backends.denoise import Denoise, float_denoise
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.weight_layout import as_rows, from_rows
from segquant_trt.records import WeightPlan
from segquant_trt.schemes import quantize_weight


def weight_floor(subject: Subject, *, threads: int | None = None) -> Denoise:
    """The float denoiser with the weights of `subject`'s body rounded to nearest INT8 codes."""
    return float_denoise(rounded_weights(subject), subject.weights, threads=threads)


def rounded_weights(subject: Subject, plan: WeightPlan | None = None) -> onnx.ModelProto:
    """The exported graph, the weights of sites that are not kept in float decoded from codes."""
    graph = load_graph(subject.run / "model.onnx")
    weights = Weights(graph, subject.weights)
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    for site in subject.facts.sites:
        if site.name not in subject.kept:
            weight = weights.read_float32(site.weight)
            rows = as_rows(weight, site.weight_layout)
            decoded = quantize_weight(rows, plan or WeightPlan()).dequantize()
            exact = from_rows(decoded, site.weight_layout, weight.shape)
            stored[site.weight].CopyFrom(numpy_helper.from_array(exact, site.weight))
    return graph
