"""Which attentions TensorRT-RTX fuses into one kernel."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from segquant_trt.backends.tensorrt.rtx.prove import fused_attention, prove
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.rtx.graphs import Code, Graph
from tests.backends.tensorrt.rtx.workshop import launched, needs_rtx, reported

pytestmark = needs_rtx

HEADS = 2


def attention(
    graph: Graph, *, code: Code | None, queries: int, keys: int, size: int, masked: bool = False
) -> str:
    q = graph.input("q", 1, HEADS, queries, size)
    k, v = (graph.input(name, 1, HEADS, keys, size) for name in "kv")
    if code is not None:
        q, k, v = (graph.pair(name, 0.05, code=code) for name in (q, k, v))
    scores = graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 1, 3, 2]), name="qk")
    scores = graph.op("Mul", scores, graph.number(size**-0.5))
    if masked:
        scores = graph.op("Add", scores, graph.input("mask", 1, 1, queries, keys))
    weights = graph.op("Softmax", scores, axis=-1)
    if code is not None:
        weights = graph.pair(weights, 1 / (448 if code == "fp8" else 127), code=code)
    return graph.op("MatMul", weights, v, name="pv")


@pytest.mark.parametrize(
    ("queries", "keys", "size"),
    [(512, 512, 64), (4608, 4608, 128), (1024, 77, 64), (256, 256, 40), (64, 64, 160)],
)
@pytest.mark.parametrize("code", [None, "fp8"])
def test_16_bit_and_fp8_attention_fuses_at_every_size(code, queries, keys, size) -> None:
    graph = Graph()
    y = attention(graph, code=code, queries=queries, keys=keys, size=size)
    (fused,) = fused_attention(reported(graph.model(y)))
    assert fused.dtype == ("float16" if code is None else "float8_e4m3fn")
    assert {"qk", "pv"} <= set(fused.nodes)


@pytest.mark.parametrize("capability", ["sm_75", "sm_80", "sm_86", "sm_120"])
def test_16_bit_attention_fuses_on_every_gpu(capability: str) -> None:
    graph = Graph()
    y = attention(graph, code=None, queries=512, keys=512, size=64)
    assert len(fused_attention(reported(graph.model(y), capability))) == 1


def test_fp8_attention_fuses_on_blackwell_and_in_bfloat16() -> None:
    graph = Graph(TensorProto.BFLOAT16)
    y = attention(graph, code="fp8", queries=512, keys=512, size=64)
    (fused,) = fused_attention(reported(graph.model(y), "sm_120"))
    assert fused.dtype == "float8_e4m3fn"


def test_a_mask_may_be_added() -> None:
    graph = Graph()
    y = attention(graph, code=None, queries=128, keys=77, size=64, masked=True)
    assert len(fused_attention(reported(graph.model(y)))) == 1


@pytest.mark.parametrize("length", [256, 512])
def test_int8_attention_writes_its_scores(length: int) -> None:
    graph = Graph()
    report = reported(graph.model(attention(graph, code="int8", queries=length, keys=length,
                                            size=64)))  # fmt: skip
    assert fused_attention(report) == ()
    assert all(proof.integer for proof in prove(report, {"qk": ["qk"], "pv": ["pv"]}).values())
    scores = next(layer for layer in report.layers if "qk" in layer.onnx_nodes[:1])
    assert scores.outputs[0].dims == (HEADS, length, length)


def test_float32_attention_does_not_fuse() -> None:
    graph = Graph(TensorProto.FLOAT)
    y = attention(graph, code=None, queries=512, keys=512, size=64)
    assert fused_attention(reported(graph.model(y))) == ()


def standard_operator(graph: Graph, *, code: Code | None = None) -> str:
    names = [graph.input(name, 1, HEADS, 512, 64) for name in "qkv"]
    if code is not None:
        names = [graph.pair(name, code=code) for name in names]
    return graph.op("Attention", *names, name="attention")


@pytest.mark.parametrize("float_type", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_the_standard_operator_fuses_in_16_bits(float_type: int) -> None:
    graph = Graph(float_type, opset=23)
    assert len(fused_attention(reported(graph.model(standard_operator(graph))))) == 1


def test_the_standard_operator_ignores_fp8_codes() -> None:
    graph = Graph(opset=23)
    report = reported(graph.model(standard_operator(graph, code="fp8")))
    (fused,) = fused_attention(report)
    assert fused.dtype == "float16"
    assert len(launched(report)) == 4, "codes are decoded again before it"


def test_the_standard_operator_fails_to_build_in_float32() -> None:
    graph = Graph(TensorProto.FLOAT, opset=23)
    with pytest.raises(SegQuantError, match="not supported by a dedicated kernel"):
        reported(graph.model(standard_operator(graph)))


def test_fp8_attention_between_int8_linears_adds_no_kernel() -> None:
    counts = {code: len(launched(reported(block(code)))) for code in (None, "fp8")}
    assert counts == {None: 9, "fp8": 9}


def block(code: Code | None) -> object:
    """Query, key, value, attention, projection and residual: INT8 linears throughout."""
    graph, heads, rows, width = Graph(), 4, 64, 256
    x = graph.input("x", 2, rows, width)
    data = graph.pair(x)

    def linear(source: str, name: str) -> str:
        y = graph.op("MatMul", source, graph.weight(width, width), name=name)
        return graph.op("Add", graph.op("Mul", y, graph.random(width)), graph.random(width))

    def split(name: str, order: list[int]) -> str:
        y = graph.op("Reshape", linear(data, name), graph.integers(2, rows, heads, width // heads))
        y = graph.op("Transpose", y, perm=order)
        return y if code is None else graph.pair(y, code=code)

    query, value = (split(name, [0, 2, 1, 3]) for name in ("query", "value"))
    scores = graph.op("MatMul", query, split("key", [0, 2, 3, 1]), name="qk")
    weights = graph.op("Softmax", graph.op("Mul", scores, graph.number(0.125)), axis=-1)
    if code is not None:
        weights = graph.pair(weights, 1 / 448, code=code)
    y = graph.op("Transpose", graph.op("MatMul", weights, value, name="pv"), perm=[0, 2, 1, 3])
    y = graph.pair(graph.op("Reshape", y, graph.integers(2, rows, width)))
    return graph.model(graph.op("Add", linear(y, "out"), x))
