"""What TensorRT-RTX makes of quantised convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from segquant_trt.backends.tensorrt.rtx import prove
from tests.backends.tensorrt.rtx.graphs import Code, Graph
from tests.backends.tensorrt.rtx.workshop import launched, needs_rtx, reported

pytestmark = needs_rtx

CHANNELS, OUT, SIDE = 64, 96, 16
PER_CHANNEL, PER_TENSOR = "correlation int8 to float32", "correlation int8 to float16"


def image(graph: Graph, channels: int = CHANNELS) -> str:
    return graph.input("x", 2, channels, SIDE, SIDE)


def convolution(
    graph: Graph,
    x: str,
    *,
    channels: int = CHANNELS,
    out: int = OUT,
    taps: int = 3,
    axis: int | None = 0,
    code: Code = "int8",
    bias: bool = True,
    scale: float = 0.05,
    name: str = "site",
    **attributes: int | list[int],
) -> str:
    weight = graph.weight(out, channels, taps, taps, axis=axis, code=code)
    added = [graph.random(out)] if bias else []
    data = graph.pair(x, scale, code=code)
    pads = [taps // 2] * 4
    return graph.op("Conv", data, weight, *added, name=name, pads=pads, **attributes)


@pytest.mark.parametrize("code", ["int8", "fp8"])
def test_scales_per_channel_make_it_write_float32(code: Code) -> None:
    graph = Graph()
    report = reported(graph.model(convolution(graph, image(graph), code=code)))
    kind = {"int8": "int8", "fp8": "float8_e4m3fn"}[code]
    assert launched(report) == ["kgen", f"correlation {kind} to float32", "kgen"]
    assert prove(report, {"site": ["site"]})["site"].precision == code


def test_a_float_convolution_is_transposed_on_both_sides() -> None:
    graph = Graph()
    weight, bias = graph.random(OUT, CHANNELS, 3, 3), graph.random(OUT)
    y = graph.op("Conv", image(graph), weight, bias, name="site", pads=[1] * 4)
    report = reported(graph.model(y))
    assert launched(report) == ["kgen", "correlation float16 to float16", "kgen"]
    assert [layer.name.split("_myl0")[0] for layer in report.layers[::2]] == ["__myl_Tran"] * 2


def test_one_scale_for_all_channels_makes_it_write_float16() -> None:
    graph = Graph()
    y = convolution(graph, image(graph), axis=None, bias=False)
    y = graph.op("Add", graph.op("Mul", y, graph.random(1, OUT, 1, 1)), graph.random(1, OUT, 1, 1))
    report = reported(graph.model(y))
    assert launched(report) == ["kgen", PER_TENSOR, "kgen"]
    proof = prove(report, {"site": ["site"]})["site"]
    assert proof.integer
    assert len(proof.after) == 1, "found by what it reads: it carries no name of the site"


@pytest.mark.parametrize(
    "shape",
    [
        {"taps": 1},
        {"channels": 4, "out": 33},
        {"channels": 3},
        {"out": CHANNELS, "group": 4, "channels": CHANNELS},
        {"strides": [2, 2]},
    ],
    ids=["1x1", "33 of 4", "of 3 channels", "grouped", "stride"],
)
def test_every_shape_is_computed_in_eight_bits(shape) -> None:
    graph = Graph()
    x = image(graph, shape.get("channels", CHANNELS))
    inner = dict(shape)
    if "group" in inner:
        inner["channels"] = CHANNELS // inner["group"]
    report = reported(graph.model(convolution(graph, x, **inner)))
    assert launched(report) == ["kgen", PER_CHANNEL, "kgen"]


def test_a_depthwise_convolution_is_widened_to_groups_of_four() -> None:
    graph = Graph()
    x = image(graph)
    y = convolution(graph, x, channels=1, out=CHANNELS, group=CHANNELS)
    report = reported(graph.model(y))
    assert launched(report) == ["kgen", PER_CHANNEL, "kgen"]
    product = next(layer for layer in report.layers if layer.kind == "correlation")
    assert product.inputs[0].dims[1] == 4 * CHANNELS


@pytest.mark.parametrize("bias", ["input", "Add"])
def test_the_bias_joins_the_epilogue_however_it_is_written(bias: str) -> None:
    graph = Graph()
    y = convolution(graph, image(graph), bias=bias == "input")
    if bias == "Add":
        y = graph.op("Add", y, graph.random(1, OUT, 1, 1))
    assert launched(reported(graph.model(y))) == ["kgen", PER_CHANNEL, "kgen"]


def test_a_pair_on_the_output_only_adds_rounding() -> None:
    graph = Graph()
    y = graph.pair(convolution(graph, image(graph)), 0.1)
    report = reported(graph.model(y))
    assert launched(report) == ["kgen", PER_CHANNEL, "kgen"]
    assert "Roun" in report.layers[-1].name


def test_the_next_quantiser_joins_the_epilogue() -> None:
    graph = Graph()
    y = convolution(graph, image(graph), name="first")
    y = graph.op("Add", y, graph.input("temb", 2, OUT, 1, 1))
    y = convolution(graph, graph.op("Relu", y), channels=OUT, out=CHANNELS, name="second")
    y = graph.op("Add", y, "x")
    names = ["kgen", PER_CHANNEL, "kgen", PER_CHANNEL, "kgen"]
    assert launched(reported(graph.model(y))) == names


@pytest.mark.parametrize("written", ["GroupNormalization", "InstanceNormalization"])
def test_group_norm_and_silu_are_one_kernel_and_the_quantiser_another(written: str) -> None:
    graph = Graph()
    x = image(graph)
    if written == "GroupNormalization":
        gain, shift = graph.random(CHANNELS), graph.random(CHANNELS)
        y = graph.op(written, x, gain, shift, num_groups=32)
    else:
        y = graph.op("Reshape", x, graph.integers(0, 32, -1))
        ones, zeros = graph.constant(np.ones(32)), graph.constant(np.zeros(32))
        y = graph.op(written, y, ones, zeros)  # its own gain must be 1 to be recognised
        y = graph.op("Reshape", y, graph.op("Shape", x))
        y = graph.op("Mul", y, graph.random(1, CHANNELS, 1, 1))
        y = graph.op("Add", y, graph.random(1, CHANNELS, 1, 1))
    report = reported(graph.model(convolution(graph, graph.silu(y))))
    assert launched(report) == ["kgen", "kgen", PER_CHANNEL, "kgen"]
    assert "GnorSilu" in report.layers[0].name


def test_a_factor_per_pixel_of_a_1x1_costs_a_kernel() -> None:
    graph = Graph()
    x = image(graph)
    factor = graph.row_maximum(x, 1)
    y = convolution(graph, graph.op("Div", x, factor), taps=1, bias=False, scale=1 / 127)
    report = reported(graph.model(graph.op("Mul", y, factor)))
    assert launched(report) == ["kgen", "kgen", PER_CHANNEL, "kgen"]


def test_a_factor_per_sample_costs_two_kernels() -> None:
    graph = Graph()
    x = image(graph)
    factor = graph.row_maximum(x, 1, 2, 3)
    y = convolution(graph, graph.op("Div", x, factor), bias=False, scale=1 / 127)
    report = reported(graph.model(graph.op("Mul", y, factor)))
    assert launched(report) == ["kgen", "kgen", "kgen", PER_CHANNEL, "kgen"]


def test_two_polarities_are_two_convolutions() -> None:
    graph = Graph()
    x, zero = image(graph), graph.number(0.0)
    weight = graph.weight(OUT, CHANNELS, 3, 3, axis=0)
    parts = [
        graph.op("Conv", graph.pair(graph.op(side, x, zero), scale), weight, name=side,
                 pads=[1] * 4)
        for side, scale in (("Max", 0.05), ("Min", 0.002))
    ]  # fmt: skip
    report = reported(graph.model(graph.op("Add", *parts)))
    assert launched(report) == ["kgen", PER_CHANNEL, PER_CHANNEL, "kgen"]
    assert prove(report, {"site": ["Max", "Min"]})["site"].integer


def test_resize_works_on_codes() -> None:
    graph = Graph()
    sizes = graph.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    y = graph.op("Resize", image(graph), "", sizes, nearest_mode="floor", **nearest)
    report = reported(graph.model(convolution(graph, y)))
    assert launched(report) == ["kgen", "runtime_function", PER_CHANNEL, "kgen"]
    resized = next(layer for layer in report.layers if layer.kind == "runtime_function")
    assert resized.outputs[0].dtype == "int8"


def test_a_transposed_convolution_stays_in_16_bits() -> None:
    graph = Graph()
    weight = graph.weight(CHANNELS, OUT, 2, 2, axis=1)
    y = graph.op("ConvTranspose", graph.pair(image(graph)), weight, name="site", strides=[2, 2])
    report = reported(graph.model(y))
    assert "deconv float16 to float16" in launched(report)
    assert not prove(report, {"site": ["site"]})["site"].integer
