"""Why OpenVINO's int8 can be wrong without a word, per kind of node, and what repairs it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from segquant_trt.backends import backend_for
from segquant_trt.backends.onnxruntime import literal_session
from segquant_trt.backends.openvino import OpenVino, float_session
from segquant_trt.backends.openvino.probe import WAYS, Way, exact_way, prepared
from segquant_trt.backends.openvino.session import Session, compile_graph, core
from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import ActivationScheme, DualFull, DualScale, KeepFloat
from segquant_trt.rewrite import rewrite
from tests.small_graphs import (
    SCALE,
    Array,
    away_from_ties,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
    scheme_of,
    treated,
)

NODES = {
    "linear": (48, 48),
    "conv 1x1": (48, 48, 1, 1),
    "conv 3x3": (48, 48, 3, 3),
    "grouped": (48, 12, 3, 3),
    "depthwise": (48, 1, 3, 3),
}


def one_site(folder: Path, shape: tuple[int, ...], weight: Array) -> Path:
    linear = len(shape) == 2
    if linear:
        nodes = linear_nodes("site", "x", "y", bias=False, stored=False)
        weights = {"site.weight": np.ascontiguousarray(weight.T)}
    else:
        pads = [shape[-1] // 2] * 4
        groups = 48 // shape[1]
        inputs = ["x", "site.weight"]
        nodes = [helper.make_node("Conv", inputs, ["y"], name="site", pads=pads, group=groups)]
        weights = {"site.weight": weight}
    dims = ["n", "t", 48] if linear else ["n", 48, "h", "w"]
    model = save_graph(folder / "model.onnx", nodes, {"x": dims}, ["y"], weights)
    facts = facts_of(model)
    plan = plan_of(facts, "openvino", lambda _: scheme_of("symmetric"))
    rewrite(model, folder, facts, plan, folder / "quantized.onnx")
    return folder / "quantized.onnx"


def relative_error(found: Array, wanted: Array) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("within", [64, 127], ids=["codes up to 64", "codes up to 127"])
@pytest.mark.parametrize("node", list(NODES))
def test_only_saturation_makes_native_sums_wrong(tmp_path: Path, node: str, within: int) -> None:
    """With codes up to 64 every kernel is exact everywhere. With 127, on CPUs without VNNI, all
    are wrong by more than 2 % but depthwise convolutions, which add no pairs of products."""
    weight = full_range_weight(NODES[node], 1)
    quantized = one_site(tmp_path, NODES[node], weight)
    model = load_graph(quantized)
    codes = next(t for t in model.graph.initializer if t.name == "site.weight_int8")
    layout = (-1, *[1] * (len(NODES[node]) - 1)) if node != "linear" else (1, -1)
    full = _read(model, quantized, codes.name).astype(np.int16)
    small = np.clip(full, -within, within).astype(np.int8)
    scale = _read(model, quantized, "site.weight_int8_scale").reshape(layout)
    shape = (2, 7, 48) if node == "linear" else (1, 48, 6, 7)
    x = away_from_ties(shape, 2, low=-128, high=127)
    session = Session(compile_graph(model, tmp_path, {codes.name: small}, threads=1))
    error = relative_error(session.run({"x": x})["y"], expected(x, small * scale, node))
    if within == 64 or exact_way() in ("native", "padded") or node == "depthwise":
        assert error < 1e-6
    else:
        assert error > 0.02


def expected(x: Array, weight: Array, node: str) -> Array:
    from segquant_trt.schemes import fake_quantize

    values = fake_quantize(x, scheme_of("symmetric")).astype(np.float64)
    if node == "linear":
        return values @ weight
    import torch

    kernel = torch.from_numpy(weight.astype(np.float64))
    padding, groups = kernel.shape[-1] // 2, 48 // kernel.shape[1]
    found = torch.nn.functional.conv2d(
        torch.from_numpy(values), kernel, padding=padding, groups=groups
    )
    return found.numpy()


def _read(model, path: Path, name: str) -> Array:
    from segquant_trt.graph.bigfile import Weights

    return Weights(model, path.parent).read(name)


@pytest.mark.parametrize("way", ["split", "split and padded"])
@pytest.mark.parametrize("node", list(NODES))
def test_split_sums_are_exact_on_every_cpu(tmp_path: Path, node: str, way: Way) -> None:
    """With and without padding of its own; halves stay within 64, where nothing saturates."""
    weight = full_range_weight(NODES[node], 3)
    quantized = one_site(tmp_path, NODES[node], weight)
    graph, arrays = prepared(load_graph(quantized), tmp_path, way)
    first, second = (arrays[f"site.weight_int8{half}"].astype(int) for half in ("", "/half"))
    assert max(np.abs(first).max(), np.abs(second).max()) <= 64
    np.testing.assert_array_equal(
        first + second, _read(load_graph(quantized), quantized, "site.weight_int8")
    )
    convolutions = [n for n in graph.graph.node if n.op_type == "Conv"]
    pads = {
        amount for n in convolutions for a in n.attribute if a.name == "pads" for amount in a.ints
    }
    assert pads <= ({0} if way == "split and padded" else {0, 1})
    shape = (2, 7, 48) if node == "linear" else (1, 48, 6, 7)
    x = away_from_ties(shape, 4, low=-128, high=127)
    session = Session(compile_graph(graph, tmp_path, arrays, threads=1))
    matrix = weight.T if node == "linear" else weight
    assert relative_error(session.run({"x": x})["y"], expected(x, matrix, node)) < 1e-6


SCHEMES: dict[str, ActivationScheme] = {
    "symmetric": scheme_of("symmetric"),
    "shifted": scheme_of("shifted"),
    "dual_scale": DualScale(positive_scale=SCALE, negative_scale=SCALE),
    "dual_full": DualFull(positive_scale=SCALE, negative_scale=SCALE),
}


@pytest.mark.parametrize("scheme", list(SCHEMES))
@pytest.mark.parametrize("node", ["linear", "conv 1x1", "conv 3x3"])
def test_codes_behind_a_concat_keep_their_scale(tmp_path: Path, node: str, scheme: str) -> None:
    """OpenVINO moves the step of int8 codes in front of the Concat of a convolution, and then
    rounds to whole numbers; ours are uint8."""
    weight = full_range_weight(NODES[node], 7)
    linear = node == "linear"
    nodes = [helper.make_node("Concat", ["first", "second"], ["x"], axis=2 if linear else 1)]
    if linear:
        nodes += linear_nodes("site", "x", "y", bias=False, stored=False)
    else:
        pads = [weight.shape[-1] // 2] * 4
        nodes += [helper.make_node("Conv", ["x", "site.weight"], ["y"], name="site", pads=pads)]
    inputs = {
        name: ["n", "t", width] if linear else ["n", width, "h", "w"]
        for name, width in (("first", 16), ("second", 32))
    }
    stored = {"site.weight": np.ascontiguousarray(weight.T) if linear else weight}
    model = save_graph(tmp_path / "model.onnx", nodes, inputs, ["y"], stored)
    facts = facts_of(model)
    (site,) = plan_of(facts, "openvino", lambda _: scheme_of("symmetric")).sites
    planned = replace(site, treatment=treated(48, SCHEMES[scheme]))
    plan = replace(plan_of(facts, "openvino", lambda _: KeepFloat()), sites=(planned,))
    rewrite(model, tmp_path, facts, plan, tmp_path / "quantized.onnx")
    x = away_from_ties((2, 7, 48) if linear else (1, 48, 6, 7), 8, low=-20, high=120)
    parts = dict(zip(inputs, np.split(x, [16], axis=2 if linear else 1), strict=True))
    found = OpenVino().open(tmp_path / "quantized.onnx", threads=1).run(parts)["y"]
    wanted = literal_session(tmp_path / "quantized.onnx", threads=1).run(parts)["y"]
    assert relative_error(found, wanted) < 1e-6


def test_the_first_right_way_is_taken_and_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from segquant_trt.backends.openvino import probe

    assert exact_way() in WAYS
    tried: list[Way] = []

    def wrong(model, folder, way):
        tried.append(way)
        return prepared(model, folder, "native")

    monkeypatch.setattr(probe, "prepared", wrong)
    monkeypatch.setattr(probe, "_right", lambda found, wanted: len(tried) == 3)
    exact_way.cache_clear()
    assert exact_way() == "padded"
    monkeypatch.setattr(probe, "_right", lambda found, wanted: False)
    exact_way.cache_clear()
    with pytest.raises(SegQuantError, match="int8 arithmetic is wrong on this CPU"):
        exact_way()
    exact_way.cache_clear()


def test_a_site_left_in_float_is_not_reported_as_integer(tmp_path: Path) -> None:
    weight = full_range_weight((32, 32), 5)
    nodes = [
        *linear_nodes("first", "x", "h", bias=True, stored=True),
        *linear_nodes("second", "h", "y", bias=True, stored=True),
    ]
    weights = {
        name: array.astype(np.float16)
        for site in ("first", "second")
        for name, array in ((f"{site}.weight", weight), (f"{site}.bias", weight[0]))
    }
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": ["n", "t", 32]}, ["y"], weights)
    facts = facts_of(model)
    kept = {"second": KeepFloat()}
    plan = plan_of(facts, "openvino", lambda s: kept.get(s, scheme_of("symmetric")))
    rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx")
    example = {"x": np.zeros((1, 2, 32), np.float32)}
    proofs = OpenVino().integer_sites(
        tmp_path / "q.onnx", ["first", "second", "absent"], example=example
    )
    assert {name: proof.integer for name, proof in proofs.items()} == {
        "first": True,
        "second": False,
        "absent": False,
    }


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_float_weights_are_read_where_they_are(tmp_path: Path, dtype: type) -> None:
    """Weights beyond 64 KiB are bound by reference, from a folder other than the graph's."""
    weight = full_range_weight((192, 256), 6)
    nodes = linear_nodes("fc", "x", "y", bias=True, stored=True)
    weights = {"fc.weight": weight.astype(dtype), "fc.bias": weight[:, 0].astype(dtype)}
    path = save_graph(tmp_path / "model.onnx", nodes, {"x": ["n", "t", 256]}, ["y"], weights)
    elsewhere = tmp_path / "checkpoint"
    elsewhere.mkdir()
    (tmp_path / "weights.bin").rename(elsewhere / "weights.bin")
    x = np.random.default_rng(0).standard_normal((2, 3, 256)).astype(np.float32)
    session = float_session(load_graph(path).SerializeToString(), elsewhere, threads=1)
    assert [(spec.name, spec.dtype, len(spec.shape)) for spec in session.inputs] == [
        ("x", "float32", 3)
    ]
    assert relative_error(session.run({"x": x})["y"], x @ weight.T + weight[:, 0]) < 1e-5


def test_missing_openvino_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    core.cache_clear()
    try:
        with pytest.raises(MissingDependencyError) as caught:
            backend_for("openvino").versions()
    finally:
        core.cache_clear()
    assert "segquant-trt[openvino]" in caught.value.hint


def test_an_unreadable_graph_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd")
    path = save_graph(tmp_path / "m.onnx", [node], {"x": ["n"]}, ["y"], {}, external=False)
    with pytest.raises(SegQuantError, match="OpenVINO refuses the graph"):
        OpenVino().open(path)


BEFORE = {
    "divisor": ("Mul",),
    "quotient": ("Div",),
    "shift": ("Add",),
    "divisors": ("Mul", "Mul"),
    "norm": ("Mul", "Add"),
    "behind an activation": ("Add", "Relu", "Mul"),
}


@pytest.mark.parametrize("before", list(BEFORE))
@pytest.mark.parametrize("node", ["conv 1x1", "conv 3x3", "depthwise"])
def test_steps_per_channel_before_codes_are_right_where_channels_are_unknown(
    tmp_path: Path, node: str, before: str
) -> None:
    """OpenVINO fuses them into the codes, wrongly, where it cannot know how many there are."""
    weight = full_range_weight(NODES[node], 9)
    random = np.random.default_rng(10)
    vector = random.uniform(0.5, 1.5, (48, 1, 1)).astype(np.float32)
    nodes, tensor = [], "x"
    for index, operator in enumerate(BEFORE[before]):
        operands = [tensor] if operator == "Relu" else [tensor, "vector"]
        tensor = f"step{index}"
        nodes.append(helper.make_node(operator, operands, [tensor], name=tensor))
    nodes.append(
        helper.make_node(
            "Conv", [tensor, "site.weight"], ["y"], name="site",
            pads=[weight.shape[-1] // 2] * 4, group=48 // weight.shape[1],
        )
    )  # fmt: skip
    stored = {"site.weight": weight, "vector": vector}
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": ["n", "c", "h", "w"]}, ["y"], stored)
    facts = facts_of(model)
    plan = plan_of(facts, "openvino", lambda _: scheme_of("shifted"))
    rewrite(model, tmp_path, facts, plan, tmp_path / "quantized.onnx")
    feeds = {"x": random.uniform(-1.0, 5.0, (2, 48, 6, 7)).astype(np.float32)}
    backend = OpenVino()
    found = backend.open(tmp_path / "quantized.onnx", threads=1).run(feeds)["y"]
    wanted = literal_session(tmp_path / "quantized.onnx", threads=1).run(feeds)["y"]
    # A code at a tie may fall to either side; wrong steps cost tens of percents.
    assert relative_error(found, wanted) < 0.02
    assert backend.integer_sites(tmp_path / "quantized.onnx", ["site"], example=feeds)[
        "site"
    ].integer
