"""int8 codes with zero point 0, as TensorRT wants them: the numbers of the reference all the same.

In float32 to its rounding; in float16 to that of its scales and tensors. Where TensorRT-RTX is
installed, its builder makes 8-bit products of every one of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.backends import Backend, backend_for
from segquant_trt.backends.tensorrt.rtx import available
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import KeepFloat, Shifted
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import site_output
from tests.small_graphs import (
    Array,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
)
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

FLOAT32_ROUNDING = 2e-6
FLOAT16_ROUNDING = 2.0**-7  # of the largest output: rounded inputs may move a code by one
CASES = {**WHOLE, **FURTHER}
BACKEND = backend_for("tensorrt-rtx")
TYPES = {"float32": FLOAT32_ROUNDING, "float16": FLOAT16_ROUNDING}


@pytest.fixture(params=list(TYPES))
def tolerance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    placement = replace(BACKEND.placement, float_type=request.param)
    monkeypatch.setattr(type(BACKEND), "placement", placement)
    return TYPES[request.param]


def offered(backend: Backend, model: Path, given: Case) -> bool:
    facts = facts_of(model)
    (own,) = plan_of(facts, backend.target, lambda _: KeepFloat()).sites
    planned = replace(own, treatment=given.treatment)
    return backend.placement.lacks(facts.sites[0], planned) is None


def emitted(folder: Path, model: Path, given: Case) -> Path:
    facts = facts_of(model)
    plan = plan_of(facts, BACKEND.target, lambda _: KeepFloat())
    sites = tuple(replace(own, treatment=given.treatment) for own in plan.sites)
    out = folder / "quantized.onnx"
    plan = replace(plan, sites=sites)
    rewrite(model, model.parent, facts, plan, out, arrays=given.arrays, timestep="timestep")
    return out


def ran(out: Path, feeds: dict[str, Array]) -> Array:
    return np.asarray(BACKEND.open(out, threads=1).run(feeds)["y"], dtype=np.float32)


def assert_close(found: Array, wanted: Array, tolerance: float) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", list(CASES))
def test_linear(tmp_path: Path, name: str, layout: str, tolerance: float) -> None:
    given, lead = CASES[name], LAYOUTS[layout]
    weight = full_range_weight((24, CHANNELS), 1)
    bias = np.random.default_rng(2).standard_normal(24).astype(np.float32)
    model = linear(tmp_path, weight, bias, gemm=layout == "gemm", rank=len(lead) + 1)
    if not offered(BACKEND, model, given):
        return
    timestep = np.array([-3.0, 250.0, 999.0, 499.9, 0.0, 700.0][: lead[0]], dtype=np.float32)
    x = inputs_of(given, lead, timestep, 3)
    found = ran(emitted(tmp_path, model, given), {"x": x, "timestep": timestep})
    rows = x.reshape(-1, CHANNELS)
    steps = np.repeat(timestep, len(rows) // len(timestep))
    wanted = site_output(rows, weight, given.treatment, given.arrays, bias, steps)
    assert_close(found, wanted.reshape(*lead, 24), tolerance)


@pytest.mark.parametrize("shape", list(CONVOLUTIONS))
@pytest.mark.parametrize("name", list(ON_CONVOLUTIONS))
def test_convolution(tmp_path: Path, name: str, shape: str, tolerance: float) -> None:
    sizes: dict[str, Any] = {"stride": 1, "groups": 1, "outputs": 24, **CONVOLUTIONS[shape]}
    given, kernel = ON_CONVOLUTIONS[name], sizes["kernel"]
    weight = full_range_weight((sizes["outputs"], CHANNELS // sizes["groups"], kernel, kernel), 4)
    bias = np.random.default_rng(5).standard_normal(sizes["outputs"]).astype(np.float32)
    model = convolution(tmp_path, weight, bias, stride=sizes["stride"], groups=sizes["groups"])
    if not offered(BACKEND, model, given):
        return
    timestep = np.array([499.0, 500.0], dtype=np.float32)
    x = np.moveaxis(inputs_of(given, (2, 7, 6), timestep, 6), 3, 1).copy()
    wanted = convolved(x, weight, given, timestep, sizes["stride"], sizes["groups"])
    found = ran(emitted(tmp_path, model, given), {"x": x, "timestep": timestep})
    assert_close(found, wanted + bias[:, None, None], tolerance)


def test_borders_of_shifted_convolutions_are_exact(tmp_path: Path) -> None:
    """The padding's zeros are coded like all others: the code 0 would stand for the offset."""
    given = case(("shifted", "static"))
    scheme = given.treatment.segments[0].activation
    assert isinstance(scheme, Shifted)
    assert scheme.zero_shift != 0
    weight = full_range_weight((24, CHANNELS, 3, 3), 4)
    model = convolution(tmp_path, weight, None, stride=1, groups=1)
    graph = load_graph(emitted(tmp_path, model, given)).graph
    (pad,) = [node for node in graph.node if node.op_type == "Pad"]
    (conv,) = [node for node in graph.node if node.op_type == "Conv"]
    assert [list(a.ints) for a in conv.attribute if a.name == "pads"] == [[0, 0, 0, 0]]
    (pads,) = [t for t in graph.initializer if t.name == pad.input[1]]
    assert numpy_helper.to_array(pads).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_a_divisor_folds_into_a_site_with_an_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales, what each channel's is of the scalar, and the correction all take it."""
    exact = replace(BACKEND.placement, float_type="float32")
    monkeypatch.setattr(type(BACKEND), "placement", exact)
    first, second = case(("shifted", "static")), case(("symmetric", "static"), smooth=True)
    weights = {"a.weight": full_range_weight((CHANNELS, CHANNELS), 1) / 64}
    weights |= {"b.weight": full_range_weight((24, CHANNELS), 2)}
    weights |= {"a.bias": np.linspace(-1, 1, CHANNELS, dtype=np.float32)}
    nodes = linear_nodes("a", "x", "h", bias=True, stored=True)
    nodes += linear_nodes("b", "h", "y", bias=False, stored=True)
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    inputs = {"x": ["n", "t", CHANNELS], "timestep": ["n"]}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y", "unused"], weights)
    facts = facts_of(model)
    plan = plan_of(facts, BACKEND.target, lambda _: KeepFloat())
    chosen = {"a": first.treatment, "b": second.treatment}
    sites = tuple(replace(own, treatment=chosen[own.site]) for own in plan.sites)
    out = tmp_path / "quantized.onnx"
    rewrite(model, tmp_path, facts, replace(plan, sites=sites), out, arrays=second.arrays)
    assert not [n.name for n in load_graph(out).graph.node if n.output[0] == "h_smoothed"]
    x = inputs_of(first, (2, 5), np.zeros(2, dtype=np.float32), 3)
    rows = x.reshape(-1, CHANNELS)
    hidden = site_output(rows, weights["a.weight"], first.treatment, {}, weights["a.bias"], None)
    wanted = site_output(
        hidden, weights["b.weight"], second.treatment, second.arrays, None, None
    ).reshape(2, 5, 24)
    found = ran(out, {"x": x, "timestep": np.zeros(2, dtype=np.float32)})
    # Codes of the second site may move by one where its input lies between two.
    assert np.median(np.abs(found - wanted)) <= FLOAT32_ROUNDING * np.abs(wanted).max()
    assert_close(found, wanted, FLOAT16_ROUNDING)


def test_all_codes_are_int8_around_zero(tmp_path: Path) -> None:
    model = linear(tmp_path, full_range_weight((24, CHANNELS), 1), None, gemm=False, rank=3)
    graph = load_graph(emitted(tmp_path, model, CASES["dual_full static"])).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    coders = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(coders) == 6  # two planes with a weight each
    for node in coders:
        zero, scale = stored[node.input[2]], stored[node.input[1]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
        assert scale.data_type == TensorProto.FLOAT16


@pytest.mark.skipif(available() is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize(
    "name", ["symmetric static", "shifted per_token", "dual_full per_step", "split"]
)
def test_the_builder_makes_8_bit_products(tmp_path: Path, name: str) -> None:
    found = [key for key in CASES if key.startswith(name)]
    given = CASES[found[0]]
    bias = np.random.default_rng(2).standard_normal(24).astype(np.float32)
    model = linear(tmp_path, full_range_weight((24, CHANNELS), 1), bias, gemm=False, rank=3)
    timestep = np.array([250.0, 700.0], dtype=np.float32)
    x = inputs_of(given, (2, 9), timestep, 3)
    out = emitted(tmp_path, model, given)
    (proof,) = BACKEND.integer_sites(out, ["fc"], example={"x": x, "timestep": timestep}).values()
    assert proof.integer, proof.kernel
