"""Graphs that TensorRT-RTX refuses, computes in 16 bits without a word, or reads wrongly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from segquant_trt.backends.tensorrt.rtx import prove
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.rtx.graphs import DEPTH, ROWS, WIDTH, Graph
from tests.backends.tensorrt.rtx.workshop import needs_rtx, reported

pytestmark = needs_rtx

Written = Callable[[Graph, str], str]


def product(graph: Graph, data: str, weight: str) -> str:
    return graph.op("MatMul", data, weight, name="site")


def computed_scale(graph: Graph, x: str) -> str:
    largest = graph.op("ReduceMax", graph.op("Abs", x), keepdims=0)
    scale = graph.op("Mul", largest, graph.number(1 / 127))
    return product(graph, graph.pair(x, scale), graph.weight(DEPTH, WIDTH, axis=1))


def joined_after_decoding(graph: Graph, x: str) -> str:
    skip = graph.pair(graph.input("skip", 2, ROWS, 64), 0.01)
    joined = graph.op("Concat", graph.pair(x, 0.05), skip, axis=2)
    return product(graph, joined, graph.weight(DEPTH + 64, WIDTH, axis=1))


def four_bits(graph: Graph, x: str) -> str:
    numbers = np.random.default_rng(3).integers(-8, 8, DEPTH * WIDTH)
    graph.constants.append(helper.make_tensor("w4", TensorProto.INT4, [DEPTH, WIDTH], numbers))
    scales = graph.random(DEPTH // 64, WIDTH)
    return product(graph, x, graph.op("DequantizeLinear", "w4", scales, axis=0, block_size=64))


SILENT: dict[str, Written] = {
    "weight scales along the contraction": lambda g, x: product(
        g, g.pair(x), g.weight(DEPTH, WIDTH, axis=0)
    ),
    "FP8 weight scales along the contraction": lambda g, x: product(
        g, g.pair(x, code="fp8"), g.weight(DEPTH, WIDTH, axis=0, code="fp8")
    ),
    "activation scales per channel": lambda g, x: product(
        g, g.pair(x, np.linspace(0.01, 0.1, DEPTH), axis=2), g.weight(DEPTH, WIDTH, axis=1)
    ),
    "a scale that the graph computes": computed_scale,
    "Mul between DQ and MatMul": lambda g, x: product(
        g, g.op("Mul", g.pair(x), g.random(DEPTH)), g.weight(DEPTH, WIDTH, axis=1)
    ),
    "Concat of DQs with other scales": joined_after_decoding,
    "coded weight only": lambda g, x: product(g, x, g.weight(DEPTH, WIDTH, axis=1)),
    "four bits in blocks": four_bits,
}


@pytest.mark.parametrize("case", SILENT)
def test_builds_without_a_word_and_multiplies_in_16_bits(case: str) -> None:
    graph = Graph()
    report = reported(graph.model(SILENT[case](graph, graph.input("x", 2, ROWS, DEPTH))))
    proof = prove(report, {"site": ["site"]})["site"]
    assert not proof.integer
    assert proof.precision is None
    assert proof.kernel.startswith("runtime_fusion")
    assert not any("8" in warning for warning in report.warnings)


@pytest.mark.parametrize("mistake", ["weight", "data"])
def test_convolutions_with_scales_on_the_wrong_axis_multiply_in_16_bits(mistake: str) -> None:
    graph = Graph()
    x = graph.input("x", 2, 64, 16, 16)
    if mistake == "weight":
        data, weight = graph.pair(x), graph.weight(96, 64, 3, 3, axis=1)
    else:
        data = graph.pair(x, np.linspace(0.01, 0.1, 64), axis=1)
        weight = graph.weight(96, 64, 3, 3, axis=0)
    report = reported(graph.model(graph.op("Conv", data, weight, name="site", pads=[1] * 4)))
    proof = prove(report, {"site": ["site"]})["site"]
    assert proof.kernel == "correlation float16 x float16"
    assert not proof.integer


def test_equal_codes_may_be_joined_after_decoding() -> None:
    graph = Graph()
    skip = graph.pair(graph.input("skip", 2, ROWS, 64), 0.05)
    joined = graph.op("Concat", graph.pair(graph.input("x", 2, ROWS, DEPTH), 0.05), skip, axis=2)
    y = product(graph, joined, graph.weight(DEPTH + 64, WIDTH, axis=1))
    assert prove(reported(graph.model(y)), {"site": ["site"]})["site"].integer


def zero_point(graph: Graph, x: str, zero: np.generic | None) -> str:
    scale = graph.number(0.05)
    zeros = [] if zero is None else [graph.constant(np.array(zero))]
    coded = graph.op("QuantizeLinear", x, scale, *zeros, name="coding")
    data = graph.op("DequantizeLinear", coded, scale, *zeros)
    return product(graph, data, graph.weight(DEPTH, WIDTH, axis=1))


@pytest.mark.parametrize("zero", [None, np.uint8(0)])
def test_unsigned_codes_are_read_as_signed_ones(zero: np.generic | None) -> None:
    """ONNX means 0..255 by both; the builder makes -128..127 of them."""
    graph = Graph()
    report = reported(graph.model(zero_point(graph, graph.input("x", 2, ROWS, DEPTH), zero)))
    made = next(use for layer in report.layers for use in layer.outputs if use.dtype == "int8")
    assert made.dims == (2, ROWS, DEPTH)
    assert [w for w in report.warnings if "Defaulting to INT8" in w] == (
        [] if zero is None else list(report.warnings)
    )


def decoded_bias(graph: Graph, x: str) -> str:
    numbers = graph.constant(np.arange(WIDTH, dtype=np.int32))
    zeros = graph.constant(np.zeros(WIDTH, dtype=np.int32))
    bias = graph.op("DequantizeLinear", numbers, graph.random(WIDTH), zeros, axis=0, name="bias")
    return graph.op("Add", graph.linear(x, "site"), bias)


def blocks(graph: Graph, x: str) -> str:
    codes, scales = graph.codes((DEPTH, WIDTH), "int8"), graph.random(DEPTH // 64, WIDTH)
    weight = graph.op("DequantizeLinear", codes, scales, axis=0, block_size=64)
    return product(graph, graph.pair(x), weight)


def other_float(graph: Graph, x: str) -> str:
    bias = graph.constant(np.ones(WIDTH, dtype=np.float32))
    return graph.op("Add", graph.linear(x, "site"), bias, name="bias")


def codes_taken_apart(graph: Graph, x: str) -> str:
    bounds = [graph.integers(bound) for bound in (0, DEPTH, 0)]
    part = graph.op("Slice", graph.codes((2 * DEPTH, WIDTH), "int8"), *bounds)
    weight = graph.op("DequantizeLinear", part, graph.random(WIDTH), axis=1)
    return product(graph, graph.pair(x), weight)


REFUSED: dict[str, tuple[Written, str]] = {
    "non-zero int8 zero point": (
        lambda g, x: zero_point(g, x, np.int8(3)),
        r"at node 'coding' \(QuantizeLinear\).*Non-zero zero point",
    ),
    "uint8 zero point of 128": (
        lambda g, x: zero_point(g, x, np.uint8(128)),
        r"at node 'coding' \(QuantizeLinear\).*Non-zero zero point",
    ),
    "DQ of int32": (decoded_bias, r"at node 'bias' \(DequantizeLinear\).*Int32"),
    "FP16 with FP32": (other_float, r"at node 'bias' \(Add\).*Half and Float"),
    "INT8 data and FP8 weight": (
        lambda g, x: product(g, g.pair(x), g.weight(DEPTH, WIDTH, axis=1, code="fp8")),
        "cannot build.*same type",
    ),
    "INT8 weights in blocks": (blocks, "cannot build"),
    "Slice before DQ": (codes_taken_apart, "only allowed before DQ"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_one_clear_error(case: str) -> None:
    graph = Graph()
    write, message = REFUSED[case]
    model = graph.model(write(graph, graph.input("x", 2, ROWS, DEPTH)))
    with pytest.raises(SegQuantError, match=message) as caught:
        reported(model)
    assert "checkMacros" not in caught.value.what, "the cause, not what follows from it"


def test_bfloat16_is_refused_for_turing() -> None:
    graph = Graph(TensorProto.BFLOAT16)
    model = graph.model(graph.linear(graph.input("x", 2, ROWS, DEPTH), "site"))
    with pytest.raises(SegQuantError, match=r"sm_75.*b16"):
        reported(model, "sm_75")
