"""Which nodes stay in float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from segquant_trt.graph.wiring import Wiring
from segquant_trt.rewrite.half import islands
from segquant_trt.rewrite.half.islands import LIMIT
from tests.rewrite.half.graphs import graph, node

ONE = np.array(1.0, dtype=np.float32)


def kept(model: onnx.ModelProto, largest: Mapping[str, float] | None = None) -> dict[str, str]:
    found = islands(Wiring(model.graph), lambda _: True, largest or {})
    return {island.node: island.reason for island in found}


def test_arguments_of_sines_and_what_leads_to_them() -> None:
    nodes = [
        node("Mul", ["t", "f"], ["angle"]),
        node("Sin", ["angle"], ["s"]),
        node("Cos", ["angle"], ["c"]),
        node("Concat", ["s", "c"], ["y"], axis=1),
        node("Mul", ["t", "f"], ["elsewhere"]),
    ]
    model = graph(nodes, {"t": ["n", 1]}, ["y", "elsewhere"], {"f": np.ones((1, 8), np.float32)})
    assert list(kept(model)) == ["angle", "s", "c"]
    assert set(kept(model).values()) == {"computes the argument of a sine or cosine"}


def rms(square: str) -> list[onnx.NodeProto]:
    first = (
        node("Mul", ["x", "x"], ["square"])
        if square == "Mul"
        else node("Pow", ["x", "two"], ["square"])
    )
    return [
        first,
        node("ReduceMean", ["square", "axis"], ["mean"], keepdims=1),
        node("Add", ["mean", "eps"], ["sum"]),
        node("Sqrt", ["sum"], ["root"]),
        node("Div", ["x", "root"], ["y"]),
    ]


def test_squares_up_to_their_root() -> None:
    constants = {"two": ONE * 2, "eps": ONE, "axis": np.array([-1])}
    for square in ("Mul", "Pow"):
        model = graph(rms(square), {"x": ["n", 8]}, ["y"], constants)
        assert list(kept(model)) == ["square", "mean", "sum", "root"], square
    plain = [node("ReduceMean", ["x", "axis"], ["y"], keepdims=1)]
    assert kept(graph(plain, {"x": ["n", 8]}, ["y"], {"axis": np.array([-1])})) == {}


def test_values_beyond_the_limit_and_their_readers() -> None:
    nodes = [
        node("Mul", ["x", "k"], ["big"]),
        node("Tanh", ["big"], ["small"]),
        node("Neg", ["small"], ["y"]),
    ]
    model = graph(nodes, {"x": ["n", 8]}, ["y"], {"k": ONE})
    assert kept(model, {"big": LIMIT}) == {}
    assert list(kept(model, {"big": LIMIT * 1.01})) == ["big", "small"]
    assert list(kept(model, {"big": float("inf")})) == ["big", "small"]
    (first, _) = islands(Wiring(model.graph), lambda _: True, {"big": 1e5})
    assert (first.reason, first.largest) == ("exceeds float16", 1e5)
