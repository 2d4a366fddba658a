"""One site at a time: every treatment in a float graph gives the numbers of the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.records import GraphFacts, KeepFloat, QuantPlan
from segquant_trt.schemes import site_output
from segquant_trt.verify.site_errors import FloatModel, site_errors, with_one_site
from tests.small_graphs import Array, facts_of, full_range_weight, plan_of
from tests.treatments import (
    CHANNELS,
    CONVOLUTIONS,
    FURTHER,
    LAYOUTS,
    ON_CONVOLUTIONS,
    WHOLE,
    Case,
    case,
    convolution,
    convolved,
    inputs_of,
    linear,
)

LINEAR = {**WHOLE, **FURTHER, "weights alone": case(("float", "static"), bits=4, block=16)}


def plan_for(facts: GraphFacts, given: Case) -> QuantPlan:
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    sites = tuple(replace(site, treatment=given.treatment) for site in plan.sites)
    return replace(plan, sites=sites)


def output(model: Path, given: Case, feeds: dict[str, Array]) -> Array:
    facts, graph = facts_of(model), load_graph(model)
    weights = Weights(graph, model.parent)
    (site,) = plan_for(facts, given).sites
    changed = with_one_site(
        graph, weights, facts.sites[0], site, given.arrays, "timestep", model.parent
    )
    return float_session(changed, model.parent, threads=1).run(feeds, ["y"])["y"]


def assert_close(found: Array, wanted: Array) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("layout", ["rank 3", "gemm"])
@pytest.mark.parametrize("name", list(LINEAR))
def test_linear(tmp_path: Path, name: str, layout: str) -> None:
    given, lead = LINEAR[name], LAYOUTS[layout]
    weight = full_range_weight((24, CHANNELS), 1)
    bias = np.random.default_rng(2).standard_normal(24).astype(np.float32)
    model = linear(tmp_path, weight, bias, gemm=layout == "gemm", rank=len(lead) + 1)
    timestep = np.linspace(100.0, 900.0, lead[0]).astype(np.float32)
    x = inputs_of(given, lead, timestep, 3)
    rows = x.reshape(-1, CHANNELS)
    steps = np.repeat(timestep, len(rows) // len(timestep))
    wanted = site_output(rows, weight, given.treatment, given.arrays, bias, steps)
    found = output(model, given, {"x": x, "timestep": timestep})
    assert_close(found, wanted.reshape(*lead, 24))


@pytest.mark.parametrize("name", [name for name in ON_CONVOLUTIONS if name != "per_token"])
def test_convolution(tmp_path: Path, name: str) -> None:
    given = ON_CONVOLUTIONS[name]
    weight = full_range_weight((24, CHANNELS, 3, 3), 4)
    bias = np.random.default_rng(5).standard_normal(24).astype(np.float32)
    model = convolution(tmp_path, weight, bias, stride=2, groups=1)
    timestep = np.array([249.0, 250.0], dtype=np.float32)
    x = np.moveaxis(inputs_of(given, (2, 7, 6), timestep, 6), 3, 1).copy()
    wanted = convolved(x, weight, given, timestep, 2, 1) + bias[:, None, None]
    assert_close(output(model, given, {"x": x, "timestep": timestep}), wanted)


def test_grouped_convolution(tmp_path: Path) -> None:
    given, groups = ON_CONVOLUTIONS["per_step"], CONVOLUTIONS["grouped"]["groups"]
    weight = full_range_weight((24, CHANNELS // groups, 3, 3), 4)
    model = convolution(tmp_path, weight, None, stride=1, groups=groups)
    timestep = np.array([600.0, 0.0], dtype=np.float32)
    x = np.moveaxis(inputs_of(given, (2, 5, 4), timestep, 6), 3, 1).copy()
    wanted = convolved(x, weight, given, timestep, 1, groups)
    assert_close(output(model, given, {"x": x, "timestep": timestep}), wanted)


def test_worst_site_first(tmp_path: Path) -> None:
    """Four bits cost more than eight; a site left in float is not listed."""
    given = LINEAR["symmetric static"]
    weight = full_range_weight((24, CHANNELS), 1)
    model = linear(tmp_path, weight, None, gemm=False, rank=3)
    facts = facts_of(model)
    timestep = np.zeros(2, dtype=np.float32)
    x = inputs_of(given, (2, 5), timestep, 3)
    batches = [{"x": x, "timestep": timestep}]
    float_model = FloatModel(graph=load_graph(model), facts=facts, folder=tmp_path)
    found = {
        name: site_errors(float_model, plan_for(facts, LINEAR[name]), batches, threads=1)
        for name in ("symmetric static", "four bits")
    }
    assert found["symmetric static"][0].sqnr_db > found["four bits"][0].sqnr_db + 10.0
    kept = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    assert site_errors(float_model, kept, batches, threads=1) == ()
    tables = plan_for(facts, given)
    name = facts.sites[0].name
    assert site_errors(float_model, tables, batches, absent=(name,), threads=1) == ()
