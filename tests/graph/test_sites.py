"""Sites, however their weights reach them, and what is no site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from segquant_trt.graph.module_scope import module_scope
from segquant_trt.graph.sites import find_sites
from segquant_trt.graph.weight_layout import as_rows
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import LinearSite
from segquant_trt.records import Rejection as NearMiss
from tests.analyze.graphs import Drawing

K, N = 5, 7
WEIGHT = np.arange(K * N, dtype=np.float32).reshape(K, N)  # as a MatMul reads it


def sites(drawing: Drawing) -> tuple[list[LinearSite], list[NearMiss]]:
    return find_sites(Wiring(drawing.model().graph), {})


def matmul(d: Drawing, weight: str) -> str:
    return d.op("MatMul", d.input("x", "batch", K), weight, name="site")


def gemm(d: Drawing, weight: str, **attributes: object) -> str:
    return d.op("Gemm", d.input("x", "batch", K), weight, name="site", **attributes)


def conv(d: Drawing, weight: str) -> str:
    return d.op("Conv", d.input("x", "batch", K, "h", "w"), weight, name="site")


def cast(d: Drawing, source: str) -> str:
    return d.op("Cast", source, to=onnx.TensorProto.FLOAT)


def turned(d: Drawing, source: str) -> str:
    return d.op("Transpose", source, perm=[1, 0])


def decoded(d: Drawing, codes: np.ndarray) -> str:
    scale, zero = d.constant(0.5), d.constant(0, np.int8)
    return d.op("DequantizeLinear", d.constant(codes, np.int8), scale, zero)


def constant_node(d: Drawing, value: np.ndarray) -> str:
    return d.op("Constant", value=onnx.numpy_helper.from_array(value))


WEIGHTS: dict[str, tuple[Callable[[Drawing], str], str]] = {
    "stored as read": (lambda d: matmul(d, d.constant(WEIGHT)), "KN"),
    "stored as torch does": (lambda d: matmul(d, turned(d, d.constant(WEIGHT.T))), "NK"),
    "default transposition": (
        lambda d: matmul(d, d.op("Transpose", d.constant(WEIGHT.T))), "NK"),
    "cast": (lambda d: matmul(d, turned(d, cast(d, d.constant(WEIGHT.T, np.float16)))), "NK"),
    "cast to another's type": (
        lambda d: matmul(d, d.op("CastLike", d.constant(WEIGHT, np.float16), "x")), "KN"),
    "turned twice": (lambda d: matmul(d, turned(d, turned(d, d.constant(WEIGHT)))), "KN"),
    "identity": (lambda d: matmul(d, d.op("Identity", d.constant(WEIGHT))), "KN"),
    "constant node": (lambda d: matmul(d, constant_node(d, WEIGHT)), "KN"),
    "codes": (lambda d: matmul(d, decoded(d, WEIGHT)), "KN"),
    "codes turned": (lambda d: matmul(d, turned(d, decoded(d, WEIGHT.T))), "NK"),
    "gemm": (lambda d: gemm(d, d.constant(WEIGHT)), "KN"),
    "gemm transB": (lambda d: gemm(d, d.constant(WEIGHT.T), transB=1), "NK"),
    "gemm transB of a turned one": (
        lambda d: gemm(d, turned(d, d.constant(WEIGHT)), transB=1), "KN"),
    "1x1 convolution as linear": (
        lambda d: matmul(d, turned(d, d.reshape(d.constant(WEIGHT.T[:, :, None, None]), N, K))),
        "NK"),
    "1x1 convolution flattened": (
        lambda d: gemm(d, d.op("Flatten", d.constant(WEIGHT.T[:, :, None, None])), transB=1),
        "NK"),
    "1x1 convolution squeezed": (
        lambda d: gemm(d, d.op("Squeeze", d.constant(WEIGHT.T[..., None])), transB=1), "NK"),
    "linear as 1x1 convolution": (
        lambda d: conv(d, d.op("Unsqueeze", d.constant(WEIGHT.T), d.constant([2, 3], np.int64))),
        "NK"),
    "convolution": (lambda d: conv(d, d.constant(WEIGHT.T[:, :, None, None])), "NCHW"),
    "convolution cast": (
        lambda d: conv(d, cast(d, d.constant(WEIGHT.T[:, :, None, None], np.float16))), "NCHW"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(WEIGHTS))
def test_weights_are_found_and_read_right(kind: str) -> None:
    build, layout = WEIGHTS[kind]
    drawing = Drawing()
    drawing.outputs.append(build(drawing))
    (site,), misses = sites(drawing)
    assert misses == []
    assert (site.in_features, site.out_features, site.weight_layout) == (K, N, layout)
    wiring = Wiring(drawing.model().graph)
    stored = onnx.numpy_helper.to_array(wiring.constants[site.weight]).astype(np.float32)
    np.testing.assert_array_equal(as_rows(stored, site.weight_layout), WEIGHT.T)
    assert ("DequantizeLinear" in site.weight_path) == kind.startswith("codes")


def test_one_row_and_one_column_weights_are_told_apart() -> None:
    for dims, transposes in (((1, K), True), ((K, 1), False), ((1, 1), False)):
        drawing = Drawing()
        weight = drawing.constant(np.ones(dims))
        weight = turned(drawing, weight) if transposes else weight
        drawing.op("MatMul", drawing.input("x", "batch", "k"), weight, name="site")
        (site,), _ = sites(drawing)
        assert (site.in_features, site.out_features) == (max(dims), 1)
        assert site.weight_layout == ("NK" if transposes else "KN")


def computed_weight(d: Drawing) -> str:
    return matmul(d, d.op("Mul", d.constant(WEIGHT), d.constant(2.0)))


def mixed_weight(d: Drawing) -> str:
    return matmul(d, d.reshape(d.constant(WEIGHT.reshape(-1)), K, N))


NO_SITES: dict[str, tuple[Callable[[Drawing], str], str]] = {
    "left": (lambda d: d.op("MatMul", d.constant(WEIGHT), d.input("x", N, "b"), name="site"),
             "left operand"),
    "computed": (computed_weight, "computed from constants by Mul"),
    "regrouped": (mixed_weight, "regrouped"),
    "batched": (lambda d: d.op("MatMul", d.input("x", 3, "b", K), d.constant(np.ones((3, K, N))),
                               name="site"), "no plain matrix"),
    "alpha": (lambda d: gemm(d, d.constant(WEIGHT), alpha=2.0), "alpha"),
    "transA": (lambda d: d.op("Gemm", d.input("x", K, "b"), d.constant(WEIGHT), transA=1,
                              name="site"), "transA"),
    "transposed convolution": (
        lambda d: d.op("ConvTranspose", d.input("x", 1, K, 8, 8),
                       d.constant(np.ones((K, N, 2, 2))), name="site"), "ConvTranspose"),
    "einsum": (lambda d: d.op("Einsum", d.input("x", "b", K), d.constant(WEIGHT),
                              equation="bk,kn->bn", name="site"), "Einsum"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(NO_SITES))
def test_near_misses_say_why(kind: str) -> None:
    build, reason = NO_SITES[kind]
    drawing = Drawing()
    drawing.outputs.append(build(drawing))
    found, (miss,) = sites(drawing)
    assert found == []
    assert (miss.site, miss.pattern) == ("n:site", "site")
    assert reason in miss.reason
    assert miss.nodes


def test_products_of_two_inputs_or_two_constants_are_nothing() -> None:
    drawing = Drawing()
    x = drawing.input("x", "b", 4, 4)
    drawing.op("MatMul", x, x)
    drawing.op("MatMul", drawing.constant(np.eye(4)), drawing.constant(np.eye(4)))
    assert sites(drawing) == ([], [])


def test_nodes_without_a_name_are_called_after_their_output() -> None:
    drawing = Drawing()
    output = matmul(drawing, drawing.constant(WEIGHT))
    drawing.nodes[-1].name = ""
    (site,), _ = sites(drawing)
    assert site.name == output == site.output


def test_biases_are_found_behind_casts_only_when_they_are_vectors() -> None:
    for bias, expected in ((np.ones(N), True), (np.ones((1, N)), False), (np.ones(1), False)):
        drawing = Drawing()
        product = matmul(drawing, drawing.constant(WEIGHT))
        stored = drawing.constant(bias, np.float16)
        result = drawing.op("Add", cast(drawing, stored), product)
        (site,), _ = sites(drawing)
        assert site.bias == (stored if expected else None)
        assert site.output == (result if expected else product)


def test_grouped_convolutions_count_all_channels() -> None:
    drawing = Drawing()
    x = drawing.input("x", "b", 8, "h", "w")
    drawing.op("Conv", x, drawing.constant(np.ones((8, 1, 3, 3))), group=8, name="site")
    (site,), _ = sites(drawing)
    assert (site.in_features, site.out_features, site.groups, site.kernel) == (8, 8, 8, (3, 3))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/down_blocks.0/attn1/to_out.0/MatMul", "down_blocks.0.attn1.to_out.0"),
        ("/conv_in/Conv", "conv_in"),
        ("/features/features.0/Conv_3", "features.0"),
        ("/net/net.0/net.0.1/proj/Gemm", "net.0.1.proj"),
        ("/MatMul_2", None),
        ("node_MatMul_17", None),
        ("blocks.0/MatMul", None),
        ("", None),
    ],
)  # fmt: skip
def test_modules_of_the_torchscript_exporter(name: str, module: str | None) -> None:
    assert module_scope(onnx.helper.make_node("MatMul", ["a", "b"], ["c"], name=name)) == module


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'blocks.0', 'blocks.0.proj', 'linear']", "blocks.0.proj"),
        ("['', 'linear']", None),
        ("not a list", None),
    ],
)
def test_modules_of_the_dynamo_exporter(scopes: str, module: str | None) -> None:
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"], name="/misleading/MatMul")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert module_scope(node) == module


@pytest.mark.parametrize("operator", ["Conv", "Gemm"])
@pytest.mark.parametrize("bias", ["none", "constant", "stored in another type", "input"])
def test_a_computed_bias_is_told_from_a_constant_one_and_from_none(
    operator: str, bias: str
) -> None:
    d = Drawing()
    kernel = WEIGHT.T.reshape(N, K, 1, 1)
    dims = ("batch", K, "h", "w") if operator == "Conv" else ("batch", K)
    inputs = [d.input("x", *dims), d.constant(kernel if operator == "Conv" else WEIGHT)]
    if bias == "input":
        inputs.append(d.input("b", N))
    elif bias != "none":
        values = np.ones(N, dtype=np.float32)
        inputs.append(d.constant(values) if bias == "constant" else cast(d, d.constant(values)))
    d.op(operator, *inputs, name="site")
    ((site,), _) = sites(d)
    assert (site.bias is not None) == (bias in ("constant", "stored in another type"))
    assert site.computed_bias == (bias == "input")
