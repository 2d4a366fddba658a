"""Where TensorRT-RTX puts the scales: found by looking for their bytes in the engine.

ONNX Runtime computes dequantised floats and shows none of this.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto

from tests.backends.tensorrt.rtx.graphs import DEPTH, ROWS, WIDTH, Code, Graph
from tests.backends.tensorrt.rtx.workshop import built, needs_rtx

pytestmark = needs_rtx

DATA_SCALE, WEIGHT_SCALE = 0.0513, 0.00173
RELATIVE = np.random.default_rng(1).random(WIDTH) * 0.5 + 0.75
BIAS = np.random.default_rng(2).random(WIDTH) + 3.0
TYPES = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
CODES = ("int8", "fp8")


def held(engine: bytes, values: npt.NDArray[np.float64], dtype: npt.DTypeLike) -> bool:
    """Whether the engine holds `values`, each rounded to `dtype` (or its neighbour)."""
    itemsize = np.dtype(dtype).itemsize
    wanted = np.asarray(values, dtype).view(f"u{itemsize}").astype(np.int64)
    for offset in range(itemsize):
        count = (len(engine) - offset) // itemsize
        found = np.frombuffer(engine, f"u{itemsize}", count, offset).astype(np.int64)
        starts = np.flatnonzero(abs(found[: -len(wanted)] - wanted[0]) <= 1)
        if any((abs(found[k : k + len(wanted)] - wanted) <= 1).all() for k in starts):
            return True
    return False


def per_channel(code: Code, float_type: int, decoded: float | None = None) -> bytes:
    graph = Graph(float_type)
    data = graph.pair(
        graph.input("x", 2, ROWS, DEPTH), DATA_SCALE, code=code, decoded_scale=decoded
    )
    scales = graph.constant(RELATIVE * WEIGHT_SCALE)
    codes, zero = graph.codes((DEPTH, WIDTH), code), graph.zero(code, [WIDTH])
    weight = graph.op("DequantizeLinear", codes, scales, zero, axis=1)
    return built(graph.model(graph.op("MatMul", data, weight, name="site")))[1]


def one_scale(code: Code, float_type: int) -> bytes:
    graph = Graph(float_type)
    data = graph.pair(graph.input("x", 2, ROWS, DEPTH), DATA_SCALE, code=code)
    weight = graph.weight(DEPTH, WIDTH, code=code, scale=WEIGHT_SCALE)
    y = graph.op("MatMul", data, weight, name="site")
    y = graph.op("Add", graph.op("Mul", y, graph.constant(RELATIVE)), graph.constant(BIAS))
    return built(graph.model(y))[1]


def test_the_search_finds_and_misses() -> None:
    values = np.array([1.5, -2.25, 0.001])
    data = b"x" + values.astype(np.float16).tobytes() + b"\0" * 8
    assert held(data, values, np.float16)
    assert not held(data, values * 1.01, np.float16)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("float_type", TYPES)
def test_scales_per_channel_leave_the_sums_of_codes_to_the_epilogue(code: Code, float_type) -> None:
    dtype = TYPES[float_type]
    data = float(np.asarray(DATA_SCALE, dtype))
    weight = np.asarray(RELATIVE * WEIGHT_SCALE, dtype).astype(np.float64)
    engine = per_channel(code, float_type)
    assert held(engine, data * weight, dtype), "the epilogue multiplies by both: alpha is 1"
    assert not held(engine, weight, dtype)


def test_small_products_of_scales_lose_digits_in_float16() -> None:
    graph = Graph()
    data, weights = 0.01, RELATIVE * 0.0005
    codes, zero = graph.codes((DEPTH, WIDTH), "int8"), graph.zero("int8", [WIDTH])
    weight = graph.op("DequantizeLinear", codes, graph.constant(weights), zero, axis=1)
    x = graph.pair(graph.input("x", 2, ROWS, DEPTH), data)
    engine = built(graph.model(graph.op("MatMul", x, weight, name="site")))[1]
    products = float(np.float16(data)) * weights.astype(np.float16).astype(np.float64)
    assert held(engine, products, np.float16)
    rounded = products.astype(np.float16).astype(np.float64)
    worst = np.abs(rounded / products - 1.0).max()
    assert worst > 4 * np.finfo(np.float16).eps, "subnormal: steps of 6e-8"


def test_the_decoding_scale_counts_where_it_differs_from_the_coding_one() -> None:
    decoded = 0.00781
    engine = per_channel("int8", TensorProto.FLOAT16, decoded=decoded)
    weight = (RELATIVE * WEIGHT_SCALE).astype(np.float16).astype(np.float64)
    assert held(engine, float(np.float16(decoded)) * weight, np.float16)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("float_type", TYPES)
def test_one_scale_is_multiplied_in_float32_inside_the_product(code: Code, float_type) -> None:
    dtype = TYPES[float_type]
    data, weight = np.asarray([DATA_SCALE, WEIGHT_SCALE], dtype).astype(np.float32)
    engine = one_scale(code, float_type)
    assert (data * weight).tobytes() in engine
    assert held(engine, RELATIVE, dtype)
    assert held(engine, BIAS, dtype)


def test_convolutions_keep_scales_per_channel_in_float32() -> None:
    graph, out = Graph(), 96
    data = graph.pair(graph.input("x", 2, 64, 16, 16), DATA_SCALE)
    scales = graph.constant(RELATIVE[:out] * WEIGHT_SCALE)
    codes, zero = graph.codes((out, 64, 3, 3), "int8"), graph.zero("int8", [out])
    weight = graph.op("DequantizeLinear", codes, scales, zero, axis=0)
    y = graph.op("Conv", data, weight, graph.random(out), name="site", pads=[1] * 4)
    engine = built(graph.model(y))[1]
    rounded = (RELATIVE[:out] * WEIGHT_SCALE).astype(np.float16).astype(np.float32)
    assert held(engine, np.float32(np.float16(DATA_SCALE)) * rounded, np.float32)
