"""Graphs of one or a few sites, as the exporter writes them, and plans for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from segquant_trt.analyze import analyze
from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import (
    ActivationScheme,
    GraphFacts,
    KeepFloat,
    QuantPlan,
    SegmentPlan,
    Shifted,
    SitePlan,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
)

Array = np.ndarray[Any, Any]
Kind = Literal["symmetric", "shifted"]
Dims = Sequence[int | str | None]

SCALE = 0.03125


def save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Dims],
    outputs: Sequence[str] | Mapping[str, Dims],
    weights: Mapping[str, Array],
    *,
    external: bool = True,
) -> Path:
    """Write a graph; the weights go to `weights.bin` beside it unless `external` is false.

    ONNX infers the outputs' shapes where they are not given.
    """
    shapes = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, dims in shapes.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model)
    for output in model.graph.output:
        found = next((v for v in inferred.graph.output if v.name == output.name), None)
        if found is not None and found.type.tensor_type.HasField("shape"):
            output.CopyFrom(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "weights.bin").unlink(missing_ok=True)  # onnx.save would append to it
    onnx.save(
        model,
        str(path),
        save_as_external_data=external,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def linear_nodes(
    name: str, source: str, result: str, *, bias: bool, stored: bool, gemm: bool = False
) -> list[onnx.NodeProto]:
    """A torch Linear: float16 `NK` weight behind Cast and Transpose when `stored`, else `KN`."""
    nodes = []
    weight = f"{name}.weight"
    if stored:
        nodes.append(helper.make_node("Cast", [weight], [f"{name}.cast"], to=1))
        weight = f"{name}.cast"
        if not gemm:
            nodes.append(helper.make_node("Transpose", [weight], [f"{name}.t"], perm=[1, 0]))
            weight = f"{name}.t"
    shift = f"{name}.bias"
    if bias and stored:
        nodes.append(helper.make_node("Cast", [shift], [f"{name}.bias_cast"], to=1))
        shift = f"{name}.bias_cast"
    if gemm:
        inputs = [source, weight, *([shift] if bias else [])]
        return [*nodes, helper.make_node("Gemm", inputs, [result], name=name, transB=int(stored))]
    product = f"{name}.product" if bias else result
    nodes.append(helper.make_node("MatMul", [source, weight], [product], name=name))
    if bias:
        nodes.append(helper.make_node("Add", [product, shift], [result], name=f"{name}.add"))
    return nodes


def full_range_weight(shape: Sequence[int], seed: int) -> Array:
    """Float32 weights, output channels first, whose int8 codes are uniform over -127..127."""
    random = np.random.default_rng(seed)
    codes = random.integers(-127, 128, shape).astype(np.float32)
    codes.reshape(shape[0], -1)[:, 0] = 127.0
    steps = 2.0 ** random.integers(-9, -5, shape[0])
    return codes * steps.reshape(-1, *[1] * (len(shape) - 1)).astype(np.float32)


def away_from_ties(shape: Sequence[int], seed: int, *, low: int, high: int) -> Array:
    """Values near multiples low..high of SCALE, far enough from ties for any rounding order."""
    random = np.random.default_rng(seed)
    steps = random.integers(low, high + 1, shape) + random.uniform(-0.4, 0.4, shape)
    return (steps * SCALE).astype(np.float32)


def scheme_of(kind: Kind) -> Symmetric | Shifted:
    """Codes over -128..127, or over -28..227 steps of SCALE."""
    return Symmetric(scale=SCALE) if kind == "symmetric" else Shifted(scale=SCALE, zero_shift=100)


def code_limits(kind: Kind) -> tuple[int, int]:
    """The multiples of SCALE that `scheme_of(kind)` represents."""
    return (-128, 127) if kind == "symmetric" else (-28, 227)


def treated(channels: int, scheme: ActivationScheme) -> Treatment:
    """The whole site coded by one scheme, with plain weights."""
    return Treatment(
        segments=(SegmentPlan(channels=channels, activation=scheme),),
        weight=None if isinstance(scheme, KeepFloat) else WeightPlan(),
    )


def plan_of(
    facts: GraphFacts,
    target: Target,
    scheme: Callable[[str], Symmetric | Shifted | KeepFloat],
    *,
    output_ranges: Mapping[str, tuple[float, float]] | None = None,
) -> QuantPlan:
    """A plan with `scheme(site)` at every site."""
    ranges = output_ranges or {}
    sites = tuple(
        SitePlan(
            site=site.name,
            module=site.module,
            treatment=treated(site.in_features, scheme(site.name)),
            output_range=ranges.get(site.name, (-4.0, 4.0)),
            macs_per_sample=site.in_features * site.out_features,
            why="test",
            considered=(),
        )
        for site in facts.sites
    )
    return QuantPlan(
        target=target,
        preset="plain",
        onnx_sha256=facts.onnx_sha256,
        facts_sha256="0" * 64,
        calibration_sha256="0" * 64,
        sites=sites,
    )


def facts_of(path: Path) -> GraphFacts:
    """What analyze finds."""
    return analyze(path)


def run_float(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The float graph's outputs."""
    return float_session(load_graph(path), path.parent, threads=1).run(feeds)
