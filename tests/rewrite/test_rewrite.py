"""From a float graph and a plan to a Q/DQ graph: what changes, what must not, what is refused."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.qdq import codes_behind, weight_codes_behind
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import GraphFacts, KeepFloat, Symmetric, WeightPlan
from segquant_trt.rewrite import rewrite
from segquant_trt.rewrite.ensure import Codes, check_codes, check_untouched
from segquant_trt.schemes import output_encoding, quantize_weight
from tests.small_graphs import (
    Array,
    away_from_ties,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    run_float,
    save_graph,
    scheme_of,
    treated,
)


def block(folder: Path, *, weight: Array | None = None, dtype: type = np.float16) -> Path:
    """Conv, then a linear behind a GELU, a Gemm on the side, and a table that stays float."""
    made = full_range_weight((24, 16), 1) if weight is None else weight
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c"], ["rows"], name="rows", perm=[0, 2, 3, 1]),
        helper.make_node("Gelu", ["rows"], ["g"], name="gelu", approximate="tanh"),
        *linear_nodes("up", "g", "h", bias=True, stored=True),
        helper.make_node("Cast", ["table"], ["table32"], name="table_cast", to=1),
        helper.make_node("Add", ["h", "table32"], ["y"], name="add_table"),
        *linear_nodes("side", "e", "z", bias=True, stored=True, gemm=True),
    ]
    weights = {
        "conv.weight": full_range_weight((16, 8, 3, 3), 2),
        "up.weight": made.astype(dtype),
        "up.bias": made[:, 0].astype(dtype),
        "side.weight": full_range_weight((32, 8), 3).astype(dtype),
        "side.bias": np.arange(32).astype(dtype),
        "table": np.arange(24 * 100).reshape(100, 24)[:1].astype(dtype),
    }
    inputs = {"x": ["n", 8, "h", "w"], "e": ["n", 8]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y", "z"], weights)


def write(model: Path, out: Path, *, target="onnxruntime", scheme=None, **changes) -> Path:
    facts = facts_of(model)
    plan = plan_of(facts, target, scheme or (lambda _: scheme_of("symmetric")))
    rewrite(model, model.parent, facts, dataclasses.replace(plan, **changes), out)
    return out


def test_codes_scales_and_layouts(tmp_path: Path) -> None:
    model = block(tmp_path)
    graph = load_graph(write(model, tmp_path / "q.onnx"))
    wiring, stored = Wiring(graph.graph), Weights(graph, tmp_path)
    source = Weights(load_graph(model), tmp_path)
    sites = {n.name: n for n in graph.graph.node if n.op_type in ("MatMul", "Conv", "Gemm")}
    assert {name: node.op_type for name, node in sites.items()} == {
        "conv": "Conv",
        "up": "MatMul",
        "side": "MatMul",
    }
    for name, node in sites.items():
        original = source.read_float32(f"{name}.weight")
        wanted = quantize_weight(original.reshape(len(original), -1), WeightPlan())
        codes = stored.read(weight_codes_behind(node.input[1], wiring) or "")
        decode = wiring.producer[node.input[1]]
        axis = next(a.i for a in decode.attribute if a.name == "axis")
        channels_first = np.moveaxis(codes, axis, 0).reshape(len(original), -1)
        np.testing.assert_array_equal(channels_first, wanted.codes)
        np.testing.assert_array_equal(stored.read(decode.input[1]), wanted.scale)
        assert not stored.read(decode.input[2]).any()
        assert codes_behind(node.input[0], wiring) == (0.03125, 128)


def test_unplanned_nodes_and_their_weights_stay(tmp_path: Path) -> None:
    """GELU keeps its approximation; float weights keep their stored type behind their Cast."""
    model = block(tmp_path)
    scheme = {"side": KeepFloat()}
    after = load_graph(
        write(model, tmp_path / "q.onnx", scheme=lambda s: scheme.get(s, scheme_of("symmetric")))
    )
    before = {node.name: node for node in load_graph(model).graph.node}
    kept = {node.name: node for node in after.graph.node}
    for name in ("rows", "gelu", "table_cast", "add_table", "side"):
        assert kept[name] == before[name]
    types = {tensor.name: tensor.data_type for tensor in after.graph.initializer}
    assert types["table"] == types["side.weight"] == onnx.TensorProto.FLOAT16
    assert "up.weight" not in types
    source, stored = Weights(load_graph(model), tmp_path), Weights(after, tmp_path)
    for name in ("table", "side.weight", "side.bias"):
        np.testing.assert_array_equal(stored.read(name), source.read(name))


def test_targets_differ_where_their_fusions_do(tmp_path: Path) -> None:
    model = block(tmp_path)
    for target, pairs, squeezes in (("onnxruntime", 4, 1), ("openvino", 3, 0)):
        graph = load_graph(write(model, tmp_path / f"{target}.onnx", target=target)).graph
        operators = [node.op_type for node in graph.node]
        assert operators.count("QuantizeLinear") == pairs
        assert operators.count("Squeeze") == squeezes
        biases = {t.name: tuple(t.dims) for t in graph.initializer if "bias" in t.name}
        lifted = (1, 1) if target == "onnxruntime" else ()
        assert biases == {"up.bias_float32": (*lifted, 24), "side.bias_float32": (*lifted, 32)}


def test_result_is_close_to_float(tmp_path: Path) -> None:
    from segquant_trt.backends import CPU_BACKENDS

    model = block(tmp_path)
    feeds = {
        "x": away_from_ties((2, 8, 5, 6), 4, low=-90, high=90),
        "e": away_from_ties((2, 8), 5, low=-90, high=90),
    }
    wanted = run_float(model, feeds)
    conv = full_range_weight((16, 8, 3, 3), 2)
    reach = float(np.abs(conv).sum(axis=(1, 2, 3)).max() * 3)
    scale = {"up": Symmetric(scale=reach / 127)}
    for backend in CPU_BACKENDS:
        facts = facts_of(model)
        plan = plan_of(
            facts,
            backend.target,
            lambda s: scale.get(s, scheme_of("symmetric")),
            output_ranges={"conv": (-reach, reach)},
        )
        rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx")
        found = backend.open(tmp_path / "q.onnx", threads=1).run(feeds)
        for name in ("y", "z"):
            noise = np.square(found[name] - wanted[name]).mean()
            assert noise < 1e-2 * np.square(wanted[name]).mean()


def test_one_activation_is_quantised_once_per_code(tmp_path: Path) -> None:
    weight = np.ascontiguousarray(full_range_weight((16, 16), 1).T)
    names = ("q", "k", "v", "other")
    nodes = [helper.make_node("MatMul", ["x", f"{n}.w"], [f"{n}.y"], name=n) for n in names]
    weights = {f"{n}.w": weight + np.float32(i) for i, n in enumerate(names)}
    outputs = [f"{n}.y" for n in names]
    model = save_graph(tmp_path / "m.onnx", nodes, {"x": ["n", "t", 16]}, outputs, weights)
    forks = {"other": scheme_of("shifted")}
    out = write(model, tmp_path / "q.onnx", scheme=lambda s: forks.get(s, scheme_of("symmetric")))
    graph = load_graph(out).graph
    assert [node.op_type for node in graph.node].count("QuantizeLinear") == 2
    sources = {node.name: node.input[0] for node in graph.node if node.name in names}
    assert sources["q"] == sources["k"] == sources["v"] != sources["other"]


def test_shared_weights_are_stored_once(tmp_path: Path) -> None:
    weight = np.ascontiguousarray(full_range_weight((64, 64), 1).T)
    nodes = [helper.make_node("MatMul", ["x", "w"], [f"y{i}"], name=f"s{i}") for i in range(3)]
    model = save_graph(
        tmp_path / "m.onnx", nodes, {"x": ["n", "t", 64]}, ["y0", "y1", "y2"], {"w": weight}
    )
    out = write(model, tmp_path / "q.onnx")
    assert out.with_suffix(".weights").stat().st_size == 64 * 64


def test_same_bytes_every_time(tmp_path: Path) -> None:
    model = block(tmp_path)
    first = write(model, tmp_path / "a" / "q.onnx")
    second = write(model, tmp_path / "b" / "q.onnx")
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".weights").read_bytes() == second.with_suffix(".weights").read_bytes()
    assert {path.name for path in first.parent.iterdir()} == {"q.onnx", "q.weights"}
    assert str(tmp_path).encode() not in first.read_bytes()


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    def peak(layers: int) -> int:
        weight = np.ascontiguousarray(full_range_weight((256, 256), 1).T)
        names = [f"s{i}" for i in range(layers)]
        chain = ["x", *[f"y{i}" for i in range(layers)]]
        nodes = [
            helper.make_node("MatMul", [chain[i], f"{n}.w"], [chain[i + 1]], name=n)
            for i, n in enumerate(names)
        ]
        weights = {f"{n}.w": weight + np.float32(i) for i, n in enumerate(names)}
        folder = tmp_path / str(layers)
        model = save_graph(folder / "m.onnx", nodes, {"x": ["n", "t", 256]}, [chain[-1]], weights)
        facts = facts_of(model)
        plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
        tracemalloc.start()
        rewrite(model, folder, facts, plan, folder / "q.onnx")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(2)
    assert peak(24) < peak(4) + 24 * 256 * 256 // 4


def edited(facts: GraphFacts, **changes) -> GraphFacts:
    return dataclasses.replace(facts, **changes)


def test_other_graphs_plan_or_facts_are_refused(tmp_path: Path) -> None:
    model = block(tmp_path)
    facts = facts_of(model)
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    other = dataclasses.replace(plan, onnx_sha256="1" * 64)
    with pytest.raises(SegQuantError, match="the plan was made for a graph with sha256 1111"):
        rewrite(model, tmp_path, facts, other, tmp_path / "q.onnx")
    with pytest.raises(SegQuantError, match="the facts was made"):
        rewrite(model, tmp_path, edited(facts, onnx_sha256="2" * 64), plan, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("change", ["unknown site", "no weight", "no range", "bad scale"])
def test_plans_that_cannot_be_carried_out(tmp_path: Path, change: str) -> None:
    model = block(tmp_path)
    facts = facts_of(model)
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    first = plan.sites[0]
    assert first.site == "conv"
    first = {
        "unknown site": dataclasses.replace(first, site="conv_7"),
        "no weight": dataclasses.replace(
            first, treatment=dataclasses.replace(first.treatment, weight=None)
        ),
        "no range": dataclasses.replace(first, output_range=None),
        "bad scale": dataclasses.replace(first, treatment=treated(3, Symmetric(scale=0.0))),
    }[change]
    broken = dataclasses.replace(plan, sites=(first, *plan.sites[1:]))
    with pytest.raises(SegQuantError) as caught:
        rewrite(model, tmp_path, facts, broken, tmp_path / "q.onnx")
    assert first.site in caught.value.what
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "weights.bin"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["site", "kept"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float, place: str) -> None:
    weight = full_range_weight((24, 16), 1)
    weight[3, 5] = value
    model = block(tmp_path, weight=weight)
    kept = {"up": KeepFloat()} if place == "kept" else {}
    with pytest.raises(SegQuantError, match=r"weight 'up\.weight' holds"):
        write(model, tmp_path / "q.onnx", scheme=lambda s: kept.get(s, scheme_of("symmetric")))
    assert not (tmp_path / "q.onnx").exists()


def test_truncated_checkpoints_are_named(tmp_path: Path) -> None:
    model = block(tmp_path)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:-40])
    with pytest.raises(SegQuantError, match=r"weights\.bin is too short"):
        write(model, tmp_path / "q.onnx")


def test_zero_channels_are_fine(tmp_path: Path) -> None:
    weight = full_range_weight((24, 16), 1)
    weight[4] = 0.0
    out = write(block(tmp_path, weight=weight), tmp_path / "q.onnx")
    stored = Weights(load_graph(out), tmp_path)
    assert not stored.read("up.weight_int8")[:, 4].any()


def test_the_checks_see_what_they_shall(tmp_path: Path) -> None:
    model = block(tmp_path)
    before = load_graph(model)
    after = load_graph(write(model, tmp_path / "q.onnx"))
    pair = (0.03125, 128)
    output = output_encoding(-4.0, 4.0)
    expected = {
        name: [Codes(activation=pair, weight=f"{name}.weight_int8")] for name in ("up", "side")
    }
    requantised = (output.scale, output.zero_point)
    expected["conv"] = [Codes(activation=pair, weight="conv.weight_int8", output=requantised)]
    declared = {"conv", "up", "up.add", "side", "up.cast", "up.t"}
    casts = {node.name or node.output[0] for node in before.graph.node if node.op_type == "Cast"}
    transposes = {node.output[0] for node in before.graph.node if not node.name}
    check_untouched(before, after, declared | casts | transposes)
    check_codes(before, after, expected)
    with pytest.raises(SegQuantError, match="node 'up' changed"):
        check_untouched(before, after, (declared | casts | transposes) - {"up"})
    for site, change in (
        ("up", {"activation": (0.5, 128)}),
        ("side", {"weight": "other"}),
        ("conv", {"output": (1.0, 0)}),
    ):
        altered = [dataclasses.replace(expected[site][0], **change)]
        with pytest.raises(SegQuantError, match=f"site '{site}'"):
            check_codes(before, after, {**expected, site: altered})
    with pytest.raises(SegQuantError, match="site 'conv'"):
        check_codes(before, after, {name: expected[name] for name in ("up", "side")})
