"""A one-site bundle with named axes, made in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segquant_trt.build import build
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.plan_stamp import stamp_plan
from segquant_trt.records import (
    AxisRange,
    GraphFacts,
    Manifest,
    ModelSpec,
    QuantPlan,
    Target,
    TensorSpec,
)
from segquant_trt.rewrite import rewrite
from tests.small_graphs import (
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
    scheme_of,
)

WIDTH = 160


def spec_of(facts: GraphFacts) -> ModelSpec:
    """Two inputs that share the axis `batch`; `tokens` comes in multiples of two."""
    return ModelSpec(
        source="small",
        family="sd3",
        class_name="SD3Transformer2DModel",
        config={"layers": 1, "scale": 0.1},
        inputs=(
            TensorSpec(name="x", dtype="float32", shape=("batch", "tokens", WIDTH)),
            TensorSpec(name="e", dtype="float32", shape=("batch", WIDTH)),
        ),
        output=TensorSpec(name="y", dtype="float32", shape=("batch", "tokens", WIDTH)),
        axes=(
            AxisRange(name="batch", minimum=1, typical=2, maximum=4),
            AxisRange(name="tokens", minimum=3, typical=8, maximum=16, multiple=2),
        ),
        timestep=None,
        prompt_inputs=(),
        opset=21,
        onnx_sha256=facts.onnx_sha256,
        checkpoint=(),
        validation=None,
        exporter={},
    )


def prepare(run: Path, target: Target = "onnxruntime") -> tuple[ModelSpec, GraphFacts, QuantPlan]:
    """A run folder up to `rewrite`: `y = fc(x) + gate(e)[:, None]`."""
    from onnx import helper

    weight = full_range_weight((WIDTH, WIDTH), 1)
    nodes = [
        *linear_nodes("fc", "x", "h", bias=True, stored=True),
        *linear_nodes("gate", "e", "g", bias=True, stored=True, gemm=True),
        helper.make_node("Unsqueeze", ["g", "one"], ["g1"], name="rows"),
        helper.make_node("Add", ["h", "g1"], ["y"], name="sum"),
    ]
    weights = {f"{n}.weight": weight.astype(np.float16) for n in ("fc", "gate")}
    weights |= {f"{n}.bias": weight[0].astype(np.float16) for n in ("fc", "gate")}
    weights["one"] = np.array([1], dtype=np.int64)
    inputs = {"x": ["batch", "tokens", WIDTH], "e": ["batch", WIDTH]}
    model = save_graph(run / "model.onnx", nodes, inputs, ["y"], weights)
    facts = facts_of(model)
    plan = plan_of(facts, target, lambda _: scheme_of("symmetric"))
    rewrite(model, run, facts, plan, run / "quantized.onnx")
    return spec_of(facts), facts, plan


def make_bundle(run: Path, target: Target = "onnxruntime") -> tuple[Path, Manifest]:
    """The folder and its manifest."""
    spec, facts, plan = prepare(run, target)
    return run / "bundle", build(run, spec, facts, plan, out=run / "bundle")


def stamp_anew(run: Path, plan: QuantPlan) -> QuantPlan:
    """Mark the rewritten graph of `run` as made from `plan`, whatever it was made from."""
    path = run / "quantized.onnx"
    model = load_graph(path)
    del model.metadata_props[:]
    stamp_plan(model, plan)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return plan
