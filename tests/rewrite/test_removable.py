"""What planning takes for removed is what rewriting removes, also where taint alone would err."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from segquant_trt.analyze import analyze
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import KeepFloat
from segquant_trt.rewrite import Freezing, removable, rewrite
from tests.rewrite.hoisting import PROMPTS, STEPS, denoiser
from tests.small_graphs import plan_of

node = helper.make_node


def with_rows_per_token(folder: Path) -> Path:
    """Two more products read the timestep or the prompt alone, but a row for every token of x."""
    extra = [
        node("Constant", [], ["ends"], name="ends", value_ints=[-1]),
        node("Shape", ["x"], ["rows"], name="rows", start=0, end=2),
    ]
    for name, source, weight in (("time", "silu_e", "modulate.t"), ("prompt", "pooled", "to_v.t")):
        extra += [
            node("Unsqueeze", [source, "one"], [f"{name}.1"], name=f"{name}.1"),
            node("Shape", [source], [f"{name}.c"], name=f"{name}.c", start=1),
            node("Concat", ["rows", f"{name}.c"], [f"{name}.s"], name=f"{name}.s", axis=0),
            node("Expand", [f"{name}.1", f"{name}.s"], [f"{name}.wide"], name=f"{name}.wide"),
            node("Transpose", [weight], [f"{name}.w0"], name=f"{name}.w0", perm=[1, 0]),
            node("Transpose", [f"{name}.w0"], [f"{name}.w"], name=f"{name}.w", perm=[1, 0]),
            node("MatMul", [f"{name}.wide", f"{name}.w"], [f"{name}.y"], name=f"per_token_{name}"),
            node("ReduceMean", [f"{name}.y", "ends"], [f"{name}.z"], name=f"{name}.z", keepdims=1),
        ]
    extra.insert(0, node("Slice", ["e", "from", "to", "axis"], ["silu_e"], name="silu_e"))
    for name, value in (("from", 0), ("to", 16), ("axis", 1)):
        extra.insert(0, node("Constant", [], [name], name=name, value_ints=[value]))
    extra += [
        node("Add", ["y", "time.z"], ["y2"], name="y2"),
        node("Add", ["y2", "prompt.z"], ["z"], name="z"),
    ]
    return denoiser(folder, *extra, output="z")


@pytest.mark.parametrize("freezing", [False, True])
@pytest.mark.parametrize("hoisting", [False, True])
@pytest.mark.parametrize("per_token", [False, True])
def test_as_rewritten(tmp_path: Path, *, freezing: bool, hoisting: bool, per_token: bool) -> None:
    model = with_rows_per_token(tmp_path) if per_token else denoiser(tmp_path)
    graph, facts = load_graph(model), analyze(model, timestep="when", prompts=PROMPTS)
    before = graph.SerializeToString(deterministic=True)
    told = removable(graph, tmp_path, facts, freezing=freezing, hoisting=hoisting)
    assert graph.SerializeToString(deterministic=True) == before
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    schedule = Freezing(schedule="default:6", timesteps=STEPS, fallback=False)
    removed = rewrite(
        model, tmp_path, facts, plan, tmp_path / "q.onnx",
        freezing=schedule if freezing else None, hoisting=hoisting,
    )  # fmt: skip
    assert told == frozenset(removed.sites)
    assert bool(told) == (freezing or hoisting)
    if per_token:
        names = {"per_token_time", "per_token_prompt"}
        dependent = {entry.site for entry in facts.timestep_only} | {*facts.prompt_constant}
        assert names <= dependent, "by taint they would go"
        assert not names & told
