"""From a report to proofs, counts of kernels and fused attentions."""

from __future__ import annotations

import dataclasses

import pytest

from segquant_trt.backends.tensorrt.rtx.prove import (
    fused_attention,
    kernels,
    kernels_per_block,
    products_of,
    prove,
)
from segquant_trt.graph.qdq import mark_product
from segquant_trt.records.layer_report import Layer, LayerReport, TensorUse
from tests.backends.tensorrt.rtx.graphs import DEPTH, ROWS, WIDTH, Graph
from tests.backends.tensorrt.rtx.test_layers import excerpt


def use(name: str, dtype: str, *dims: int) -> TensorUse:
    return TensorUse(name=name, dims=dims or (4, 4), dtype=dtype)


def layer(name: str, kind: str, *nodes: str, reads=(), constants=(), writes=()) -> Layer:
    return Layer(
        name=name, kind=kind, inputs=tuple(reads), constants=tuple(constants),
        outputs=tuple(writes), tactic="", onnx_nodes=nodes,
    )  # fmt: skip


def report(*layers: Layer) -> LayerReport:
    return LayerReport(
        builder="tensorrt-rtx", version="1.7", capability="sm_89", engine_bytes=1, weights_bytes=1,
        scratch_bytes=0, seconds=0.0, layers=layers,
    )  # fmt: skip


def test_a_site_of_two_products() -> None:
    proof = prove(excerpt("segments"), {"s": ["block.0/site/a", "block.0/site/b"]})["s"]
    assert proof.integer
    assert proof.kernel == "gemm int8 x int8"
    assert proof.precision == "int8"
    assert proof.products == ("block.0/site/a_myl0_4", "block.0/site/b_myl0_2")
    assert len(proof.before) == len(proof.after) == 1


def test_one_product_in_16_bits_spoils_the_site() -> None:
    found = excerpt("segments")
    layers = [
        dataclasses.replace(each, inputs=(use("x", "float16"),))
        if each.name == "block.0/site/b_myl0_2"
        else each
        for each in found.layers
    ]
    spoiled = dataclasses.replace(found, layers=tuple(layers))
    proof = prove(spoiled, {"s": ["block.0/site/a", "block.0/site/b"]})["s"]
    assert not proof.integer
    assert proof.precision is None
    assert proof.kernel == "gemm int8 x int8, gemm float16 x int8"


def test_weight_only_is_no_8_bit_product() -> None:
    proof = prove(excerpt("weight_only"), {"site": ["site"]})["site"]
    assert not proof.integer
    assert proof.kernel.startswith("runtime_fusion float16")


@pytest.mark.parametrize("nodes", [["elsewhere"], []])
def test_a_site_that_no_layer_names_is_not_proven(nodes: list[str]) -> None:
    proof = prove(excerpt("segments"), {"site": nodes})["site"]
    assert not proof.integer
    assert proof.products == proof.before == proof.after == ()


def test_half_a_site_in_the_engine_is_not_proven() -> None:
    proof = prove(excerpt("segments"), {"s": ["block.0/site/a", "elsewhere"]})["s"]
    assert not proof.integer
    assert "absent" in proof.kernel


def test_a_product_is_its_own_and_not_one_that_carries_its_name_along() -> None:
    first = layer(
        "first", "gemm", "a", reads=[use("x", "float16")], constants=[use("w", "float16")]
    )
    second = layer(
        "second", "gemm", "b", "a", reads=[use("y", "int8")], constants=[use("v", "int8")]
    )
    assert not prove(report(second, first), {"a": ["a"]})["a"].integer
    assert prove(report(second, first), {"b": ["b"]})["b"].integer


def test_a_bias_is_no_operand() -> None:
    product = layer(
        "s", "correlation", "s", reads=[use("x", "int8")],
        constants=[use("alpha", "float32", 1), use("w", "int8"), use("b", "float16")],
    )  # fmt: skip
    assert prove(report(product), {"s": ["s"]})["s"].kernel == "correlation int8 x int8"


def test_different_8_bit_types_have_no_common_precision() -> None:
    products = [
        layer(name, "gemm", name, reads=[use("x", dtype)], constants=[use("w", dtype)])
        for name, dtype in (("a", "int8"), ("b", "float8_e4m3fn"))
    ]
    proof = prove(report(*products), {"s": ["a", "b"]})["s"]
    assert proof.integer
    assert proof.precision is None


def test_kernels_are_counted_by_block() -> None:
    found = excerpt("segments")
    assert len(found.layers) == 8
    assert len(kernels(found)) == 4

    def block_of(node: str) -> str | None:
        return node.partition("/")[0] if "/" in node else None

    assert kernels_per_block(found, block_of) == {None: 1, "block.0": 3}


def test_a_kernel_without_names_goes_with_what_it_reads() -> None:
    made = [
        layer("product", "gemm", "b1/s", reads=[use("x", "int8")], writes=[use("y", "float16")]),
        layer("moved", "kgen", reads=[use("y", "float16")], writes=[use("z", "float16")]),
        layer("lost", "kgen", reads=[use("q", "float16")]),
    ]
    assert kernels_per_block(report(*made), lambda node: node[:2]) == {"b1": 2, None: 1}


def test_fused_attention_is_found() -> None:
    (fused,) = fused_attention(excerpt("attention"))
    assert fused.dtype == "float8_e4m3fn"
    assert {"qk", "pv"} <= set(fused.nodes)
    assert fused_attention(excerpt("segments")) == ()


def test_products_are_grouped_by_the_site_that_is_noted() -> None:
    graph = Graph()
    x = graph.input("x", 2, ROWS, DEPTH)
    parts = [graph.linear(x, name) for name in ("low", "high")]
    for node in graph.nodes:
        if node.op_type == "MatMul":
            mark_product(node, "wanted")
    plain = graph.op("MatMul", x, graph.random(DEPTH, WIDTH), name="float")
    model = graph.model(*parts, plain)
    assert products_of(model) == {"wanted": ("low", "high")}
    unnamed = next(node for node in model.graph.node if node.name == "high")
    unnamed.name = ""
    assert products_of(model)["wanted"] == ("low", f"node_of_{unnamed.output[0]}")
