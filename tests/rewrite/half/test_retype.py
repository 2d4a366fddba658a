"""A graph that computes in float16 except on islands: valid, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from segquant_trt.backends.onnxruntime import float_session
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.rewrite.half import halve, largest_values
from segquant_trt.rewrite.half.retype import HalveFloats, element_types
from tests.rewrite.half.graphs import Array, graph, node

RANDOM = np.random.default_rng(0)


def halved(model: onnx.ModelProto, folder: Path, largest: dict[str, float] | None = None):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with (folder / "data").open("wb") as stream:
        islands = halve(copy, folder, PayloadWriter(stream, "data"), largest or {})
    onnx.checker.check_model(copy.SerializeToString())
    onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True)
    return copy, islands


def run(model: onnx.ModelProto, folder: Path, **feeds: Array) -> Array:
    (answer,) = float_session(model, folder, threads=1).run(feeds).values()
    return answer


def linear(scale: float = 1.0) -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "b"], ["s"]),
        node("Sigmoid", ["s"], ["y"]),
    ]
    weights = {
        "w": (scale * RANDOM.standard_normal((8, 4))).astype(np.float32),
        "b": RANDOM.standard_normal(4).astype(np.float32),
    }
    return graph(nodes, {"x": ["n", 8]}, ["y"], weights)


def test_everything_but_inputs_and_outputs_becomes_float16(tmp_path: Path) -> None:
    model = linear()
    made, islands = halved(model, tmp_path)
    assert islands == ()
    types = element_types(made)
    assert {types[name] for name in ("h", "s", "w", "b")} == {TensorProto.FLOAT16}
    assert types["x"] == types["y"] == TensorProto.FLOAT
    assert [n.op_type for n in made.graph.node] == ["Cast", "MatMul", "Add", "Sigmoid", "Cast"]
    x = RANDOM.standard_normal((5, 8)).astype(np.float32)
    found, wanted = run(made, tmp_path, x=x), run(model, tmp_path, x=x)
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_an_island_is_reached_and_left_by_one_cast_each(tmp_path: Path) -> None:
    nodes = [
        node("Mul", ["x", "k"], ["big"]),
        node("Neg", ["big"], ["a"]),
        node("Abs", ["big"], ["b"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    k = np.array(1e5, dtype=np.float32)
    model = graph(nodes, {"x": ["n", 8]}, ["y"], {"k": k})
    largest = {"big": 9e4, "a": 1.0, "b": 1.0}
    made, islands = halved(model, tmp_path, largest)
    assert [island.node for island in islands] == ["big", "a", "b"]
    assert sum(n.op_type == "Cast" for n in made.graph.node) == 3
    assert element_types(made)["k"] == TensorProto.FLOAT
    x = np.linspace(-0.9, 0.0, 8, dtype=np.float32)[None]
    np.testing.assert_allclose(run(made, tmp_path, x=x), run(model, tmp_path, x=x), rtol=1e-3)


def test_a_constant_that_both_sides_read_is_stored_once(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "k"], ["big"]), node("Mul", ["x", "k"], ["y"])]
    model = graph([*nodes, node("Neg", ["big"], ["z"])], {"x": [8]}, ["y", "z"], {
        "k": np.array(3.0, dtype=np.float32)
    })  # fmt: skip
    made, _ = halved(model, tmp_path, {"big": 1e5})
    assert [tensor.name for tensor in made.graph.initializer] == ["k"]
    assert element_types(made)["k"] == TensorProto.FLOAT


def test_operators_that_make_floats_keep_their_type(tmp_path: Path) -> None:
    scale = node("Constant", [], ["c"], value_float=0.5)
    nodes = [scale, node("Shape", ["x"], ["d"]), node("ConstantOfShape", ["d"], ["zeros"])]
    nodes += [node("Add", ["x", "zeros"], ["s"]), node("Mul", ["s", "c"], ["y"])]
    model = graph(nodes, {"x": ["n", 8]}, ["y"])
    made, islands = halved(model, tmp_path)
    assert [island.node for island in islands] == ["zeros"]
    assert element_types(made)["c"] == TensorProto.FLOAT16
    x = RANDOM.standard_normal((5, 8)).astype(np.float32)
    np.testing.assert_allclose(run(made, tmp_path, x=x), x / 2, rtol=1e-3)


def test_scales_of_a_resize_stay_float32(tmp_path: Path) -> None:
    nodes = [node("Resize", ["x", "", "factors"], ["h"], mode="nearest"), node("Neg", ["h"], ["y"])]
    factors = np.array([1, 1, 2, 2], dtype=np.float32)
    model = graph(nodes, {"x": [1, 2, 3, 3]}, ["y"], {"factors": factors})
    made, _ = halved(model, tmp_path)
    types = element_types(made)
    assert types["factors"] == TensorProto.FLOAT
    assert types["h"] == TensorProto.FLOAT16


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [node("Neg", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, ["n"])]
    )
    test = node("ReduceMax", ["x"], ["m"], keepdims=0)
    model = graph(
        [test, node("Cast", ["m"], ["flag"], to=TensorProto.BOOL),
         node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)],
        {"x": ["n"]}, ["y"],
    )  # fmt: skip
    with pytest.raises(SegQuantError, match=r"'y' \(If\) has a graph of its own"):
        HalveFloats({}).run(model)


def test_a_weight_beyond_float16_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match="weight 'w' holds"):
        halved(linear(scale=1e5), tmp_path)


@pytest.mark.parametrize("exponent", [-3, -14, -16, -20, -23])
def test_small_scales_decode_to_what_they_did(tmp_path: Path, exponent: int) -> None:
    """Subnormal numbers of float16 are coarse: scales are rounded up and codes made anew."""
    codes = RANDOM.integers(-127, 128, (8, 4)).astype(np.int8)
    scale = (np.float32(2.0**exponent) * RANDOM.uniform(1, 2, 4)).astype(np.float32)
    nodes = [
        node("DequantizeLinear", ["codes", "scale", "zero"], ["w"], axis=1),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"codes": codes, "scale": scale, "zero": np.zeros(4, dtype=np.int8)}
    model = graph(nodes, {"x": ["n", 8]}, ["y"], constants)
    made, _ = halved(model, tmp_path)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    new = stored["scale"].astype(np.float32)
    error = np.abs(stored["codes"] * new - codes * scale).max(axis=0)
    normal = scale >= 2.0**-14
    assert (error[normal] <= 127 * scale[normal] * 2.0**-11).all()
    assert (error[~normal] <= new[~normal] / 2 * (1 + 1e-6)).all()
    assert (np.abs(stored["codes"].astype(int)) <= 127).all()


def test_largest_values_over_all_calls(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "k"], ["h"]), node("Log", ["h"], ["y"])]
    model = graph(nodes, {"x": ["n"]}, ["y"], {"k": np.array(-2.0, dtype=np.float32)})
    calls = [{"x": np.array([-1.0, -3.0], dtype=np.float32)}, {"x": np.float32([-5.0])}]
    found = largest_values(model, tmp_path, calls, threads=1)
    assert found["h"] == 10.0
    assert found["y"] == pytest.approx(np.log(10.0))
    assert largest_values(model, tmp_path, [{"x": np.float32([1.0])}], threads=1)["y"] == np.inf
