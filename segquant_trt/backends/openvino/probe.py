"""Find out whether OpenVINO's int8 sums are exact on this CPU, by computing extreme ones.

Two defects are known, and both are silent:

* Without VNNI (AVX2, plain AVX-512), oneDNN multiplies uint8 by int8 with vpmaddubsw, which adds
  two products in 16 bits and saturates: 2 * 255 * 127 does not fit. Measured on AVX2, a UNet whose
  plan is worth 26 dB came out at 8 dB; every convolution and linear was off by 10 to 30 % alone,
  depthwise ones excepted (they add no pairs), and exact with weights within -64..64.
* With VNNI but without AMX, oneDNN's convolution of *signed* input forgets its 128 offset in the
  padding (uxlfoundation/oneDNN issue 5080, fixed by pull request 5115): a UNet of padded 3x3
  convolutions with symmetric int8 activations is ruined there, a transformer is not, and the same
  numbers stored as uint8 with zero point 128 take another path. Hence nothing is emitted as int8.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from segquant_trt.backends.base import Array
from segquant_trt.backends.openvino.session import Session, compile_graph
from segquant_trt.backends.openvino.split import split_weights
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.qdq import dequantize_weight, quantize_pair, scalar_tensors

Arithmetic = Literal["native", "split"]

_CHANNELS = 32
_SIDE = 8
_ZERO = 128


@functools.cache
def arithmetic() -> Arithmetic:
    """How sums become exact on this CPU: as they are, or with split weights.

    Raises:
        SegQuantError: neither way gives exact sums.
    """
    model, weight = _extremes()
    x = np.full((1, _CHANNELS, _SIDE, _SIDE), 255 - _ZERO, dtype=np.float32)
    x[..., ::3] = -_ZERO
    wanted = _expected(x, weight)
    if _agrees(model, {}, x, wanted):
        return "native"
    halves, arrays = split_weights(model, Path())
    if _agrees(halves, arrays, x, wanted):
        return "split"
    raise SegQuantError(
        "OpenVINO's int8 arithmetic is wrong on this CPU, even with weights in two halves",
        hint="choose the target 'onnxruntime'",
    )


def _extremes() -> tuple[onnx.ModelProto, Array]:
    """A padded 3x3 convolution, a 1x1 convolution and a linear on the same extreme codes."""
    weight = np.full((_CHANNELS, _CHANNELS, 3, 3), 127, dtype=np.int8)
    weight[1::2] = -127
    arrays: dict[str, Array] = {
        "padded": weight,
        "point": np.ascontiguousarray(weight[..., :1, :1]),
        "linear": np.ascontiguousarray(weight[:, :, 0, 0].T),
        "scale": np.ones(_CHANNELS, dtype=np.float32),
        "zero": np.zeros(_CHANNELS, dtype=np.int8),
    }
    nodes = [
        *quantize_pair("x", "codes", "decoded", scale="step", zero_point="offset"),
        helper.make_node("Transpose", ["decoded"], ["rows"], perm=[0, 2, 3, 1]),
    ]
    operators = (("padded", "Conv", 0), ("point", "Conv", 0), ("linear", "MatMul", 1))
    for name, operator, axis in operators:
        stored = (name, "scale", "zero")
        nodes.append(dequantize_weight(stored, f"{name}_weight", axis=axis))
        source = "decoded" if operator == "Conv" else "rows"
        pads: dict[str, Any] = {"pads": [1, 1, 1, 1]} if name == "padded" else {}
        inputs = [source, f"{name}_weight"]
        nodes.append(helper.make_node(operator, inputs, [f"{name}_sum"], name=name, **pads))
    image: list[str | int | None] = ["n", _CHANNELS, "h", "w"]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", kind, image)],
        [helper.make_tensor_value_info(f"{name}_sum", kind, None) for name, _, _ in operators],
        [
            *scalar_tensors(1.0, _ZERO, names=("step", "offset")),
            *(numpy_helper.from_array(array, name) for name, array in arrays.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model, weight


def _expected(x: Array, weight: Array) -> dict[str, Array]:
    """The sums in int64; all input channels are alike, and so are all weights of an output."""
    plane = x[0, 0].astype(np.int64)
    padded = np.pad(plane, 1)
    window = sum(padded[i : i + _SIDE, j : j + _SIDE] for i in range(3) for j in range(3))
    sign = weight[:, 0, 0, 0].astype(np.int64) * _CHANNELS
    point = sign[None, :, None, None] * plane
    return {
        "padded_sum": sign[None, :, None, None] * np.asarray(window),
        "point_sum": point,
        "linear_sum": np.moveaxis(point, 1, -1),
    }


def _agrees(
    model: onnx.ModelProto, arrays: dict[str, Array], x: Array, wanted: dict[str, Array]
) -> bool:
    found = Session(compile_graph(model, Path(), arrays, threads=1)).run({"x": x})
    return all(np.array_equal(found[name], sums) for name, sums in wanted.items())
