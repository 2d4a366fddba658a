"""Plans that ask for what a target lacks are refused by name, before anything is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from segquant_trt.backends import CPU_BACKENDS, backend_for
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import (
    CPU_TARGETS,
    Fp8,
    KeepFloat,
    PerStep,
    SegmentPlan,
    SitePlan,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import site_output
from tests.small_graphs import facts_of, full_range_weight, linear_nodes, plan_of, save_graph
from tests.treatments import (
    CHANNELS,
    FURTHER,
    STEPS,
    UNIT,
    WHOLE,
    Case,
    case,
    convolution,
    inputs_of,
    linear,
    written,
)

WEIGHT = full_range_weight((24, CHANNELS), 1)


def refused(folder: Path, model: Path, target: Target, treatment: Treatment, **site: Any) -> str:
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(SegQuantError) as caught:
        written(folder, model, target, Case(treatment=treatment, arrays={}), **site)
    assert {path.name for path in folder.iterdir()} == before
    return caught.value.what


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_linears_that_a_target_lacks(tmp_path: Path, target: Target) -> None:
    model = linear(tmp_path, WEIGHT, None, gemm=False, rank=3)
    plain = case(("symmetric", "static")).treatment
    whole = plain.segments[0]

    def told(**changes: Any) -> str:
        return refused(tmp_path, model, target, replace(plain, **changes))

    fp8 = replace(whole, activation=Fp8(scale=1.0))
    assert told(segments=(fp8,)) == f"site 'fc': target '{target}' has no fp8"
    assert "no segments of 39 channels for an input of 40" in told(
        segments=(replace(whole, channels=39),)
    )
    assert "weights in blocks with quantised" in told(weight=WeightPlan(bits=4, block=16))
    assert "with a float weight" in told(weight=None)
    assert "per_step factors of float values" in told(
        segments=(replace(whole, activation=KeepFloat(), factor=STEPS),), weight=WeightPlan(bits=4)
    )


def test_what_onnxruntime_alone_lacks(tmp_path: Path) -> None:
    model = linear(tmp_path, WEIGHT, None, gemm=False, rank=3)
    mixed = case(("symmetric", "static"), ("float", "static"))
    told = refused(tmp_path, model, "onnxruntime", mixed.treatment)
    assert "no sites with both coded and float segments" in told
    out = written(tmp_path, model, "openvino", mixed)
    x = inputs_of(mixed, (2, 5), np.zeros(2), 3)
    feeds = {"x": x, "timestep": np.zeros(2, dtype=np.float32)}
    found = backend_for("openvino").open(out, threads=1).run(feeds)["y"]
    wanted = site_output(x.reshape(-1, CHANNELS), WEIGHT, mixed.treatment, {})
    assert np.abs(found.reshape(-1, 24) - wanted).max() <= 2e-6 * np.abs(wanted).max()


def test_convolutions_that_a_target_lacks(tmp_path: Path) -> None:
    weight = full_range_weight((24, CHANNELS, 3, 3), 4)
    model = convolution(tmp_path, weight, None, stride=1, groups=1)

    def told(target: Target, given: Case, **site: Any) -> str:
        return refused(tmp_path, model, target, given.treatment, **site)

    assert "no dual_full convolutions" in told("onnxruntime", WHOLE["dual_full static"])
    assert "no split convolutions" in told("onnxruntime", FURTHER["split"])
    for target in CPU_TARGETS:
        assert "more than one tap" in told(target, WHOLE["symmetric per_token"])
        assert "4-bit weights with float" in told(target, case(("float", "static"), bits=4))
    static = WHOLE["symmetric static"]
    assert "without output_range" in told("onnxruntime", static, output_range=None)
    grouped = convolution(
        tmp_path / "g", full_range_weight((24, 10, 3, 3), 4), None, stride=1, groups=4
    )
    lacking = refused(tmp_path / "g", grouped, "openvino", FURTHER["split"].treatment)
    assert "no split grouped convolutions" in lacking
    smooth = FURTHER["smoothed"].treatment
    arrays = FURTHER["smoothed"].arrays
    with pytest.raises(SegQuantError, match="no smoothed grouped convolutions"):
        written(tmp_path / "g", grouped, "openvino", Case(treatment=smooth, arrays=arrays))


@pytest.mark.parametrize(
    "steps",
    [
        PerStep(edges=(0.0, 0.0), factors=(1.0, 2.0)),
        PerStep(edges=(0.0, 9.0), factors=(1.0, -2.0)),
        PerStep(edges=(0.0,), factors=()),
    ],
)
def test_impossible_steps(tmp_path: Path, steps: PerStep) -> None:
    model = linear(tmp_path, WEIGHT, None, gemm=False, rank=3)
    part = SegmentPlan(channels=CHANNELS, activation=Symmetric(scale=UNIT), factor=steps)
    treatment = Treatment(segments=(part,), weight=WeightPlan())
    assert "impossible" in refused(tmp_path, model, "onnxruntime", treatment)


def test_steps_need_a_timestep_that_counts_the_samples(tmp_path: Path) -> None:
    model = linear(tmp_path, WEIGHT, None, gemm=False, rank=3)
    facts = facts_of(model)
    given = case(("symmetric", "per_step"))
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    plan = replace(plan, sites=(replace(plan.sites[0], treatment=given.treatment),))
    unknown = replace(facts, timestep=None)
    with pytest.raises(SegQuantError, match="'fc' has factors per step, but no timestep input"):
        rewrite(model, tmp_path, unknown, plan, tmp_path / "q.onnx")
    nodes = linear_nodes("fc", "x", "y", bias=False, stored=True)
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    inputs = {"x": ["tokens", "batch", CHANNELS], "timestep": ["batch"]}
    other = save_graph(
        tmp_path / "o" / "model.onnx", nodes, inputs, ["y", "unused"], {"fc.weight": WEIGHT}
    )
    told = refused(tmp_path / "o", other, "onnxruntime", given.treatment)
    assert "the first axis of its input is not that of the samples of 'timestep'" in told


@pytest.mark.parametrize("array", ["divisor", "codes", "ranges"])
def test_arrays_that_are_not_there(tmp_path: Path, array: str) -> None:
    weight = full_range_weight((24, CHANNELS, 3, 3), 4)
    model = convolution(tmp_path, weight, None, stride=1, groups=1)
    plain = case(("symmetric", "static")).treatment
    treatment, site = plain, {}
    if array == "divisor":
        treatment = FURTHER["smoothed"].treatment
    elif array == "codes":
        treatment = replace(plain, weight=WeightPlan(codes="w-7"))
    else:
        site = {"output_channels": "o-7"}
    told = refused(tmp_path, model, "onnxruntime", treatment, **site)
    assert "the plan names the array '" in told
    assert "at site 'conv'" in told


def test_arrays_of_another_shape(tmp_path: Path) -> None:
    model = linear(tmp_path, WEIGHT, None, gemm=False, rank=3)
    given = FURTHER["smoothed"]
    (key,) = given.arrays
    for wrong, told in (
        (np.ones(3, np.float32), r"shape \[3\], \[40\] is needed"),
        (np.zeros(CHANNELS, np.float32), "not positive"),
    ):
        broken = Case(treatment=given.treatment, arrays={key: wrong})
        with pytest.raises(SegQuantError, match=told):
            written(tmp_path, model, "onnxruntime", broken)


def test_a_graph_of_an_old_opset_is_refused(tmp_path: Path) -> None:
    model = linear(tmp_path, WEIGHT, None, gemm=False, rank=3)
    graph = load_graph(model)
    graph.opset_import[0].version = 17
    model.write_bytes(graph.SerializeToString())
    told = refused(tmp_path, model, "onnxruntime", WHOLE["symmetric static"].treatment)
    assert "opset 17; 21 or later" in told


def test_sites_left_in_float_ask_for_nothing(tmp_path: Path) -> None:
    facts = facts_of(linear(tmp_path, WEIGHT, None, gemm=False, rank=3))
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat()).sites[0]
    kept: SitePlan = replace(plan, treatment=left_in_float(1))
    assert all(b.placement.lacks(facts.sites[0], kept) is None for b in CPU_BACKENDS)
