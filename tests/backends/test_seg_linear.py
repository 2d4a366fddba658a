"""`segquant::SegLinear`: the file runs everywhere, and `ops.yaml` says what a kernel must do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
import yaml

from segquant_trt.backends.emission import seg_linear
from segquant_trt.backends.onnxruntime import OnnxRuntime, float_session
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.schemes import site_output
from tests.small_graphs import Array, full_range_weight
from tests.treatments import (
    CHANNELS,
    FURTHER,
    WHOLE,
    Case,
    case,
    inputs_of,
    linear,
    written,
)

CONTRACT = Path(__file__).parents[2] / "plugins" / "ops.yaml"
WEIGHT = full_range_weight((24, CHANNELS), 1)
BIAS = np.random.default_rng(2).standard_normal(24).astype(np.float32)
TIMES = np.array([100.0, 600.0], dtype=np.float32)
CALLED = {
    "dual_scale": WHOLE["dual_scale static"],
    "dual_full": WHOLE["dual_full static"],
    "split": FURTHER["split"],
    "split of two polarities": FURTHER["split of two polarities"],
    "smoothed": case(("dual_scale", "static"), ("shifted", "static"), smooth=True),
}
PLAIN = {
    "one plane": WHOLE["shifted static"],
    "with factors": WHOLE["dual_full per_token"],
    "four bits": case(("dual_full", "static"), bits=4),
}


@pytest.fixture(autouse=True)
def _function_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = replace(OnnxRuntime.placement, seg_linear_function=True)
    monkeypatch.setattr(OnnxRuntime, "placement", calls)


def emitted(folder: Path, given: Case, layout: str, *, bias: bool) -> tuple[Path, Array]:
    lead = (6,) if layout == "gemm" else (2, 5)
    model = linear(
        folder, WEIGHT, BIAS if bias else None, gemm=layout == "gemm", rank=len(lead) + 1
    )
    x = inputs_of(given, lead, np.zeros(lead[0]), 3)
    return written(folder, model, "onnxruntime", given), x


def reference(x: Array, given: Case, *, bias: bool) -> Array:
    rows = x.reshape(-1, CHANNELS)
    own = BIAS if bias else None
    found = site_output(rows, WEIGHT, given.treatment, given.arrays, own, 0.0)
    return found.reshape(*x.shape[:-1], 24)


def contract() -> dict[str, Any]:
    (operator,) = yaml.safe_load(CONTRACT.read_text())["operators"]
    return operator


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("layout", ["rank 3", "gemm"])
@pytest.mark.parametrize("name", list(CALLED))
def test_the_body_computes_what_the_plain_emission_does(
    tmp_path: Path, name: str, layout: str, bias: bool
) -> None:
    given = CALLED[name]
    out, x = emitted(tmp_path, given, layout, bias=bias)
    graph = load_graph(out)
    assert [node.op_type for node in graph.graph.node].count("SegLinear") == 1
    assert not any(node.op_type == "MatMul" for node in graph.graph.node)
    onnx.checker.check_model(str(out))
    feeds = {"x": x, "timestep": np.zeros(len(x), dtype=np.float32)}
    wanted = reference(x, given, bias=bias)
    found = OnnxRuntime().open(out, threads=1).run(feeds)["y"]
    inlined = onnx.inliner.inline_local_functions(graph)
    assert not inlined.functions
    assert any(node.op_type == "MatMul" for node in inlined.graph.node)
    by_inliner = float_session(inlined, tmp_path, threads=1).run(feeds)["y"]
    for y in (found, by_inliner):
        assert np.abs(y - wanted).max() <= 3e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", list(PLAIN))
def test_other_sites_are_emitted_plainly(tmp_path: Path, name: str) -> None:
    out, x = emitted(tmp_path, PLAIN[name], "rank 3", bias=True)
    graph = load_graph(out)
    assert not graph.functions
    feeds = {"x": x, "timestep": TIMES * 0}
    found = OnnxRuntime().open(out, threads=1).run(feeds)["y"]
    wanted = reference(x, PLAIN[name], bias=True)
    assert np.abs(found - wanted).max() <= 3e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("name", list(CALLED))
def test_a_kernel_by_the_contract_gives_the_same_numbers(tmp_path: Path, name: str) -> None:
    """The formula of `ops.yaml`, on the call's inputs and attributes alone."""
    given = CALLED[name]
    out, x = emitted(tmp_path, given, "rank 3", bias=True)
    graph, weights = load_graph(out), Weights(load_graph(out), tmp_path)
    call = next(node for node in graph.graph.node if node.op_type == "SegLinear")
    names = [entry["name"] for entry in contract()["inputs"]]
    source = dict(zip(names, call.input, strict=True))
    codes, scale, steps, correction, bias = (weights.read(source[n]) for n in names[1:])
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in call.attribute}
    smoothed = x if given.divisor is None else x / given.divisor
    bounds = np.cumsum([0, *attributes["segment_sizes"]])
    y = correction.astype(np.float64) + bias
    planes = zip(
        attributes["plane_segments"], attributes["polarities"], attributes["zero_shifts"], steps,
        strict=True,
    )  # fmt: skip
    for segment, polarity, shift, step in planes:
        own = slice(bounds[segment], bounds[segment + 1])
        part = smoothed[..., own]
        if polarity:
            part = np.maximum(part, 0) if polarity > 0 else np.minimum(part, 0)
        coded = np.clip(np.rint(part / step) - shift, -128, 127)
        y = y + step * scale[segment] * (coded @ codes[own].astype(np.float64))
    wanted = reference(x, given, bias=True)
    assert np.abs(y - wanted).max() <= 3e-6 * np.abs(wanted).max()


def test_the_contract_is_that_of_the_function(tmp_path: Path) -> None:
    written_down = contract()
    assert (written_down["domain"], written_down["name"], written_down["version"]) == (
        seg_linear.DOMAIN, seg_linear.NAME, seg_linear.VERSION,
    )  # fmt: skip
    for name, given in CALLED.items():
        out, _ = emitted(tmp_path / name, given, "rank 3", bias=True)
        (function,) = load_graph(out).functions
        assert list(function.input) == [entry["name"] for entry in written_down["inputs"]]
        assert list(function.output) == [entry["name"] for entry in written_down["outputs"]]
        assert list(function.attribute) == [entry["name"] for entry in written_down["attributes"]]
        kinds = [part.activation.kind for part in given.treatment.segments]
        assert function.overload == "_and_".join(kinds)
        call = next(node for node in load_graph(out).graph.node if node.op_type == "SegLinear")
        found = {a.name: onnx.helper.get_attribute_value(a) for a in call.attribute}
        assert {a["name"] for a in written_down["attributes"]} == found.keys()
        polarities = [p for kind in kinds for p in written_down["schemes"][kind]["polarities"]]
        assert found["polarities"] == polarities
        assert len(found["segment_sizes"]) == len(kinds)
        assert found["plugin_namespace"] == b"segquant"


def test_functions_of_equal_schemes_are_declared_once(tmp_path: Path) -> None:
    out, _ = emitted(tmp_path, CALLED["split"], "rank 3", bias=True)
    graph = load_graph(out)
    assert [entry.domain for entry in graph.opset_import].count("segquant") == 1
    assert len(graph.functions) == 1
