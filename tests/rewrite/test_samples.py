"""Tensors that are told to hold samples elsewhere are those that rewriting refuses steps for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from onnx import helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import KeepFloat, PerStep, SegmentPlan, Symmetric, Treatment, WeightPlan
from segquant_trt.rewrite import rewrite, samples_elsewhere
from tests.small_graphs import facts_of, full_range_weight, linear_nodes, plan_of, save_graph

C = 12
STEPS = PerStep(edges=(0.0, 500.0), factors=(1.0, 2.0))


def model_of(folder: Path) -> Path:
    """Two sites: one reads `[samples, tokens, C]`, one its transpose."""
    nodes = [
        *linear_nodes("first", "x", "h", bias=False, stored=False),
        helper.make_node("Transpose", ["h"], ["turned"], name="turn", perm=[1, 0, 2]),
        *linear_nodes("second", "turned", "y", bias=False, stored=False),
        helper.make_node("Identity", ["timestep"], ["kept"], name="kept"),
    ]
    weights = {
        f"{n}.weight": full_range_weight((C, C), i) for i, n in enumerate(("first", "second"))
    }
    inputs = {"x": ["batch", "tokens", C], "timestep": ["batch"]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y", "kept"], weights)


def test_where_samples_lie_elsewhere_steps_are_refused(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    facts = facts_of(model)
    assert facts.timestep == "timestep"
    found = samples_elsewhere(load_graph(model), tmp_path, facts)
    assert found == {"turned"}
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    part = SegmentPlan(channels=C, activation=Symmetric(scale=0.5), factor=STEPS)
    stepped = Treatment(segments=(part,), weight=WeightPlan())
    for site in facts.sites:
        sites = tuple(
            replace(own, treatment=stepped) if own.site == site.name else own for own in plan.sites
        )
        asked, out = replace(plan, sites=sites), tmp_path / "quantized.onnx"
        if site.activation in found:
            with pytest.raises(SegQuantError, match="not that of the samples of 'timestep'"):
                rewrite(model, tmp_path, facts, asked, out)
        else:
            rewrite(model, tmp_path, facts, asked, out)


def test_without_a_timestep_nothing_is_said(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    facts = replace(facts_of(model), timestep=None)
    assert samples_elsewhere(load_graph(model), tmp_path, facts) == frozenset()
