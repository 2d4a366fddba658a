"""What TensorRT-RTX makes of quantised linears: 8-bit gemms, and what fuses around them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from segquant_trt.backends.tensorrt.rtx import products_of, prove
from tests.backends.tensorrt.rtx.graphs import DEPTH, ROWS, WIDTH, Code, Graph
from tests.backends.tensorrt.rtx.workshop import launched, needs_rtx, reported

pytestmark = needs_rtx

INT8, FP8 = "gemm int8 to float16", "gemm float8_e4m3fn to float16"
GEMM = {"int8": INT8, "fp8": FP8}
CODES = ("int8", "fp8")


def tokens(graph: Graph) -> str:
    return graph.input("x", 2, ROWS, DEPTH)


def gelu_erf(graph: Graph, x: str) -> str:
    inner = graph.op("Erf", graph.op("Div", x, graph.number(2**0.5)))
    return graph.op("Mul", graph.op("Mul", graph.op("Add", inner, graph.number(1.0)), x),
                    graph.number(0.5))  # fmt: skip


def modulated_norm(graph: Graph, x: str) -> str:
    ones, zeros = graph.constant(np.ones(DEPTH)), graph.constant(np.zeros(DEPTH))
    normed = graph.op("LayerNormalization", x, ones, zeros)
    scaled = graph.op("Mul", normed, graph.input("scale", 2, 1, DEPTH))
    return graph.op("Add", scaled, graph.input("shift", 2, 1, DEPTH))


def per_token(graph: Graph, x: str, code: Code, *, names: tuple[str, ...] = ("site",)) -> list[str]:
    largest = graph.row_maximum(x, -1)
    data = graph.pair(graph.op("Div", x, largest), 1 / (127 if code == "int8" else 448), code=code)
    made = []
    for name in names:
        y = graph.op("MatMul", data, graph.weight(DEPTH, WIDTH, code=code, axis=1), name=name)
        made.append(graph.op("Add", graph.op("Mul", y, largest), graph.random(WIDTH)))
    return made


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("capability", ["sm_89", "sm_120"])
def test_a_static_linear_is_a_quantiser_a_gemm_and_one_epilogue(code: Code, capability) -> None:
    graph = Graph()
    y = graph.op("Add", graph.linear(tokens(graph), "site", code=code), graph.random(WIDTH))
    report = reported(graph.model(graph.silu(y)), capability)
    assert launched(report) == ["kgen", GEMM[code], "kgen"]
    proof = prove(report, {"site": ["site"]})["site"]
    assert proof.integer
    assert proof.precision == code
    assert len(proof.products) == len(proof.before) == len(proof.after) == 1


def test_a_float_linear_has_one_kernel_less() -> None:
    graph = Graph()
    y = graph.op("MatMul", tokens(graph), graph.random(DEPTH, WIDTH), name="site")
    report = reported(graph.model(graph.op("Add", y, graph.random(WIDTH))))
    assert launched(report) == ["gemm float16 to float16", "kgen"]
    assert not prove(report, {"site": ["site"]})["site"].integer


@pytest.mark.parametrize("capability", ["sm_75", "sm_80", "sm_86", "sm_121"])
def test_int8_is_there_on_every_gpu(capability: str) -> None:
    graph = Graph()
    report = reported(graph.model(graph.linear(tokens(graph), "site")), capability)
    assert prove(report, {"site": ["site"]})["site"].precision == "int8"


@pytest.mark.parametrize(
    ("float_type", "written"),
    [(TensorProto.BFLOAT16, "bfloat16"), (TensorProto.FLOAT, "float32")],
)
@pytest.mark.parametrize("code", CODES)
def test_other_float_types_multiply_in_eight_bits_too(float_type, written, code: Code) -> None:
    graph = Graph(float_type)
    report = reported(graph.model(graph.linear(tokens(graph), "site", code=code)))
    kind = {"int8": "int8", "fp8": "float8_e4m3fn"}[code]
    assert launched(report)[1] == f"gemm {kind} to {written}"


@pytest.mark.parametrize("code", CODES)
def test_norm_modulation_and_row_factor_are_one_kernel_before(code: Code) -> None:
    graph = Graph()
    (y,) = per_token(graph, modulated_norm(graph, tokens(graph)), code)
    report = reported(graph.model(gelu_erf(graph, y)))
    assert launched(report) == ["kgen", GEMM[code], "kgen"]


def test_erf_gelu_after_a_static_linear_is_a_kernel_of_its_own() -> None:
    graph = Graph()
    y = graph.linear(modulated_norm(graph, tokens(graph)), "site")
    report = reported(graph.model(gelu_erf(graph, graph.op("Add", y, graph.random(WIDTH)))))
    assert launched(report) == ["kgen", INT8, "kgen", "kgen"]


def test_tanh_gelu_and_the_next_quantiser_are_one_epilogue() -> None:
    graph = Graph()
    y = graph.op("Add", graph.linear(tokens(graph), "first"), graph.random(WIDTH))
    data = graph.pair(graph.op("Gelu", y, approximate="tanh"), code="fp8")
    z = graph.op("MatMul", data, graph.weight(WIDTH, DEPTH, code="fp8", axis=1), name="second")
    report = reported(graph.model(z))
    assert launched(report) == ["kgen", INT8, "kgen", FP8, "kgen"], "both types in one network"


BEFORE: dict[str, Callable[[Graph, str], str]] = {
    "Sub": lambda g, x: g.op("Sub", x, g.number(0.3)),
    "Mul": lambda g, x: g.op("Mul", x, g.random(DEPTH)),
    "Clip": lambda g, x: g.op("Clip", x, g.number(-3.0), g.number(3.0)),
    "RMSNorm": lambda g, x: g.op("RMSNormalization", x, g.random(DEPTH)),
    "heads": lambda g, x: g.op(
        "Reshape",
        g.op("Transpose", g.op("Reshape", x, g.integers(2, 4, ROWS, 64)), perm=[0, 2, 1, 3]),
        g.integers(2, ROWS, DEPTH),
    ),
}


@pytest.mark.parametrize("before", BEFORE)
def test_elementwise_work_before_the_quantiser_costs_no_kernel(before: str) -> None:
    graph = Graph(opset=23)
    report = reported(graph.model(graph.linear(BEFORE[before](graph, tokens(graph)), "site")))
    assert launched(report) == ["kgen", INT8, "kgen"]


def test_a_factor_per_step_from_a_table_costs_no_kernel() -> None:
    graph = Graph()
    x, step = tokens(graph), graph.input("step", 2, float_type=TensorProto.INT64)
    chosen = graph.op("Gather", graph.random(20), step, axis=0)
    factor = graph.op("Reshape", chosen, graph.integers(2, 1, 1))
    y = graph.op("Mul", graph.linear(graph.op("Div", x, factor), "site"), factor)
    assert launched(reported(graph.model(y))) == ["kgen", INT8, "kgen"]


def test_a_bias_per_step_from_a_table_costs_no_kernel() -> None:
    graph = Graph()
    x, step = tokens(graph), graph.input("step", 2, float_type=TensorProto.INT64)
    chosen = graph.op("Gather", graph.random(20, WIDTH), step, axis=0)
    row = graph.op("Reshape", chosen, graph.integers(2, 1, WIDTH))
    y = graph.op("Add", graph.linear(x, "site"), row)
    assert launched(reported(graph.model(y))) == ["kgen", INT8, "kgen"]


def test_the_residual_joins_the_epilogue() -> None:
    graph = Graph()
    x = tokens(graph)
    data = graph.pair(x)
    y = graph.op("MatMul", data, graph.weight(DEPTH, DEPTH, axis=1), name="site")
    y = graph.op("Add", graph.op("Add", y, graph.random(DEPTH)), x)
    assert launched(reported(graph.model(y))) == ["kgen", INT8, "kgen"]


def test_two_segments_are_two_gemms_between_two_kernels() -> None:
    graph = Graph()
    halves = graph.op_many("Split", tokens(graph), graph.integers(96, 160), outputs=2, axis=2)
    parts = [
        graph.op("MatMul", graph.pair(half, scale), graph.weight(depth, WIDTH, axis=1), name=name)
        for half, scale, depth, name in zip(halves, (0.05, 0.01), (96, 160), "ab", strict=True)
    ]
    report = reported(graph.model(graph.op("Add", graph.op("Add", *parts), graph.random(WIDTH))))
    assert launched(report) == ["kgen", INT8, INT8, "kgen"]
    proof = prove(report, {"site": ["a", "b"]})["site"]
    assert proof.integer
    assert len(proof.products) == 2
    assert len(proof.before) == len(proof.after) == 1


def test_two_polarities_are_two_gemms_with_one_weight() -> None:
    graph = Graph()
    x, zero = graph.silu(tokens(graph)), graph.number(0.0)
    weight = graph.weight(DEPTH, WIDTH, axis=1)
    parts = [
        graph.op("MatMul", graph.pair(graph.op(side, x, zero), scale), weight, name=side)
        for side, scale in (("Max", 0.05), ("Min", 0.002))
    ]
    report = reported(graph.model(graph.op("Add", *parts)))
    assert launched(report) == ["kgen", INT8, INT8, "kgen"]
    assert prove(report, {"site": ["Max", "Min"]})["site"].integer


def test_two_polarities_stacked_in_rows_are_one_gemm() -> None:
    graph = Graph()
    x, zero = tokens(graph), graph.number(0.0)
    low = graph.op("Mul", graph.op("Min", x, zero), graph.number(25.0))
    data = graph.pair(graph.op("Concat", graph.op("Max", x, zero), low, axis=1))
    y = graph.op("MatMul", data, graph.weight(DEPTH, WIDTH, axis=1), name="site")
    high, low = graph.op_many("Split", y, graph.integers(ROWS, ROWS), outputs=2, axis=1)
    y = graph.op("Add", high, graph.op("Mul", low, graph.number(0.04)))
    assert launched(reported(graph.model(y))) == ["kgen", INT8, "kgen"]


@pytest.mark.parametrize("factor", ["static", "per_token"])
def test_products_of_the_same_codes_merge(factor: str) -> None:
    graph = Graph()
    names = ("query", "key", "value")
    if factor == "static":
        made = [graph.linear(tokens(graph) if name == "query" else "x", name) for name in names]
    else:
        made = per_token(graph, tokens(graph), "int8", names=names)
    report = reported(graph.model(*made))
    assert launched(report) == ["kgen", INT8, "kgen", "kgen", "kgen"]
    proofs = prove(report, {name: [name] for name in names})
    assert all(proof.integer for proof in proofs.values())
    assert len({proof.products for proof in proofs.values()}) == 1


def test_products_with_different_single_scales_do_not_merge() -> None:
    graph = Graph()
    data = graph.pair(tokens(graph))
    made = [
        graph.op("MatMul", data, graph.weight(DEPTH, WIDTH, scale=scale), name=name)
        for name, scale in (("query", 0.004), ("key", 0.005))
    ]
    assert launched(reported(graph.model(*made))).count(INT8) == 2


def test_gemm_of_a_transposed_weight_with_bias() -> None:
    graph = Graph()
    data = graph.pair(graph.input("x", 17, 33))
    y = graph.op("Gemm", data, graph.weight(65, 33, axis=0), graph.random(65), transB=1, name="s")
    report = reported(graph.model(y))
    assert launched(report) == ["kgen", INT8, "kgen"], "odd sizes are padded"
    assert prove(report, {"s": ["s"]})["s"].integer


def test_a_weight_may_be_transposed_after_its_codes() -> None:
    graph = Graph()
    weight = graph.op("Transpose", graph.weight(WIDTH, DEPTH, axis=0), perm=[1, 0])
    y = graph.op("MatMul", graph.pair(tokens(graph)), weight, name="site")
    assert launched(reported(graph.model(y))) == ["kgen", INT8, "kgen"]


def test_a_concat_of_floats_is_quantised_where_it_is_put_together() -> None:
    graph = Graph()
    joined = graph.op("Concat", tokens(graph), graph.input("skip", 2, ROWS, 128), axis=2)
    weight = graph.weight(DEPTH + 128, WIDTH, axis=1)
    y = graph.op("MatMul", graph.pair(joined), weight, name="site")
    assert launched(reported(graph.model(y))) == ["kgen", INT8, "kgen"]


def test_a_node_without_a_name_is_found() -> None:
    graph = Graph()
    y = graph.linear(tokens(graph), "site")
    graph.nodes[-1].name = ""
    model = graph.model(y)
    proofs = prove(reported(model), products_of(model))
    assert [proof.integer for proof in proofs.values()] == [True]


def sliced(graph: Graph, source: str, first: int, last: int, *, axis: int) -> str:
    bounds = [graph.integers(bound) for bound in (first, last, axis)]
    return graph.op("Slice", source, *bounds)


def test_codes_may_be_taken_apart_after_decoding() -> None:
    graph = Graph()
    x, codes = tokens(graph), graph.codes((DEPTH, WIDTH), "int8")
    parts = []
    for name, first, last in (("a", 0, 96), ("b", 96, DEPTH)):
        scales = graph.op("Gather", graph.random(2, WIDTH), graph.constant(np.int64(name == "b")))
        weight = graph.op("DequantizeLinear", codes, scales, axis=1)
        own = graph.pair(sliced(graph, x, first, last, axis=2), 0.05 if name == "a" else 0.01)
        part = sliced(graph, weight, first, last, axis=0)
        parts.append(graph.op("MatMul", own, part, name=name))
    model = graph.model(graph.op("Add", *parts))
    report = reported(model)
    assert launched(report) == ["kgen", INT8, INT8, "kgen"]
    proofs = prove(report, products_of(model))
    assert {name: proof.integer for name, proof in proofs.items()} == {"a": True, "b": True}


@pytest.mark.parametrize("named", [True, False])
def test_products_in_the_body_of_a_function_are_found(named: bool) -> None:
    inner = Graph()
    data, scales = inner.pair("x"), inner.random(WIDTH)
    weight = inner.op("DequantizeLinear", "codes", scales, axis=1)
    y = inner.op("MatMul", data, weight, name="inner")
    held = [helper.make_node("Constant", [], [each.name], value=each) for each in inner.constants]
    nodes, opset = [*held, *inner.nodes], helper.make_opsetid("", 21)
    graph = Graph()
    codes = graph.codes((DEPTH, WIDTH), "int8")
    name = "block.0/linear" if named else ""
    called = graph.op("Coded", tokens(graph), codes, name=name, domain="own")
    model = graph.model(called)
    model.functions.append(
        helper.make_function("own", "Coded", ["x", "codes"], [y], nodes, [opset])
    )
    model.opset_import.append(helper.make_opsetid("own", 1))
    known = name or f"node_of_{called}"
    products = products_of(model)
    assert list(products.values()) == [(f"inner | {known} (Coded)",)]
    (proof,) = prove(reported(model), products).values()
    assert proof.integer
