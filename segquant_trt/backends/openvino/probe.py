"""Find out how OpenVINO's int8 sums become exact on this CPU, by computing extreme ones.

Its kernels differ by CPU, and some are silently wrong. Without VNNI (AVX2, plain AVX-512), oneDNN
multiplies uint8 by int8 with vpmaddubsw, which adds two products in 16 bits and saturates:
2 * 255 * 127 does not fit. Measured on AVX2: a UNet whose plan is worth 26 dB came out at 8 dB;
every linear and convolution alone was off by 10 to 30 %, except depthwise ones, which add no
pairs; and all were exact with weights within -64..64. Weights in two halves repair it (`split`).

On a CPU with VNNI and without AMX, symmetric int8 was seen at 3 dB on a UNet while a transformer
was right: what only the UNet has are padded convolutions. There, OpenVINO stores signed
activations as uint8 around zero point 128, which padding must honour; oneDNN had such a defect for
signed input (its issue 5080: an offset of 128 forgotten in the padding). Padding in front of the
codes (`padding`) does without it. Whatever the cause, a way is used only if its sums are right.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from segquant_trt.backends.base import Array
from segquant_trt.backends.openvino.padding import pad_explicitly
from segquant_trt.backends.openvino.session import Session, compile_graph
from segquant_trt.backends.openvino.split import split_weights
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.qdq import dequantize_weight, quantize_pair, scalar_tensors

Way = Literal["native", "split", "padded", "split and padded"]
WAYS: tuple[Way, ...] = ("native", "split", "padded", "split and padded")

# Input channels, output channels, kernel, stride: kernels are chosen by these.
_CONVOLUTIONS = (
    (32, 32, 3, 1), (64, 128, 3, 1), (64, 64, 3, 2), (4, 32, 3, 1), (64, 4, 3, 1), (33, 17, 3, 1),
    (64, 64, 5, 1), (64, 64, 1, 1),
)  # fmt: skip
_LINEARS = ((64, 64), (128, 32))
_SIDE = 12
_FLOAT32_ROUNDING = 1e-6
_NONE: Mapping[str, Array] = MappingProxyType({})
_ZERO = 128


@functools.cache
def exact_way() -> Way:
    """The first way in `WAYS` whose sums are right on this CPU.

    Raises:
        SegQuantError: none is.
    """
    model, inputs, wanted = _extremes()
    for way in WAYS:
        graph, arrays = prepared(model, Path(), way)
        found = Session(compile_graph(graph, Path(), arrays, threads=1)).run(inputs)
        if all(_right(found[name], sums) for name, sums in wanted.items()):
            return way
    raise SegQuantError(
        "OpenVINO's int8 arithmetic is wrong on this CPU in every way that was tried",
        hint="choose the target 'onnxruntime'",
    )


def prepared(
    model: onnx.ModelProto, folder: Path, way: Way, given: Mapping[str, Array] = _NONE
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The graph as `way` wants it, and the initializers that replace its own.

    `given`: values of initializers that the graph itself does not hold.
    """
    graph = pad_explicitly(model) if "padded" in way else model
    if "split" not in way:
        return graph, dict(given)
    halved, arrays = split_weights(graph, folder, given)
    return halved, {**given, **arrays}


def _right(found: Array, wanted: Array) -> bool:
    """Equal but for float32's rounding of large sums; the known defects cost percents."""
    sums = wanted.astype(np.float64)
    error = np.abs(found.astype(np.float64) - sums)
    return bool(error.max() <= _FLOAT32_ROUNDING * np.abs(sums).max())


def _extremes() -> tuple[onnx.ModelProto, dict[str, Array], dict[str, Array]]:
    """Sites on the extreme codes 0 and 255 with weights of -127 and 127; their sums in int64."""
    nodes: list[NodeProto] = []
    stored: dict[str, Array] = {}
    inputs: dict[str, Array] = {}
    wanted: dict[str, Array] = {}
    plane = np.full((_SIDE, _SIDE), 255 - _ZERO)
    plane[:, ::3] = -_ZERO
    for index, (channels, outputs, kernel, stride) in enumerate(_CONVOLUTIONS):
        name = f"convolution{index}"
        sign = np.where(np.arange(outputs) % 2, -127, 127)
        shape = (outputs, channels, kernel, kernel)
        stored[name] = np.broadcast_to(sign[:, None, None, None], shape).astype(np.int8)
        inputs[f"{name}_x"] = _tiled(plane, (1, channels))
        wanted[f"{name}_y"] = sign[None, :, None, None] * channels * _windows(plane, kernel, stride)
        nodes += _site(name, "Conv", pads=[kernel // 2] * 4, strides=[stride] * 2)
    for index, (width, outputs) in enumerate(_LINEARS):
        name = f"linear{index}"
        sign = np.where(np.arange(outputs) % 2, -127, 127)
        stored[name] = np.broadcast_to(sign, (width, outputs)).astype(np.int8)
        inputs[f"{name}_x"] = np.moveaxis(_tiled(plane[0], (1, width)), 1, 2)
        wanted[f"{name}_y"] = plane[0][None, :, None] * width * sign
        nodes += _site(name, "MatMul")
    return _model(nodes, stored, inputs), inputs, wanted


def _tiled(plane: Array, lead: tuple[int, ...]) -> Array:
    return np.broadcast_to(plane, (*lead, *plane.shape)).astype(np.float32)


def _windows(plane: Array, kernel: int, stride: int) -> Array:
    padded = np.pad(plane.astype(np.int64), kernel // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))
    return np.asarray(windows.sum(axis=(2, 3))[::stride, ::stride])


def _site(name: str, operator: str, **attributes: list[int]) -> list[NodeProto]:
    source, weight = f"{name}_decoded", f"{name}_weight"
    axis = 0 if operator == "Conv" else 1
    node = helper.make_node(operator, [source, weight], [f"{name}_y"], name=name)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return [
        *quantize_pair(f"{name}_x", f"{name}_codes", source, scale="step", zero_point="offset"),
        dequantize_weight((name, f"{name}_scale", f"{name}_zero"), weight, axis=axis),
        node,
    ]


def _model(
    nodes: list[NodeProto], stored: dict[str, Array], inputs: dict[str, Array]
) -> onnx.ModelProto:
    tensors = list(scalar_tensors(1.0, _ZERO, names=("step", "offset")))
    for name, codes in stored.items():
        outputs = codes.shape[0] if codes.ndim == 4 else codes.shape[1]
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(codes), name))
        tensors.append(numpy_helper.from_array(np.ones(outputs, np.float32), f"{name}_scale"))
        tensors.append(numpy_helper.from_array(np.zeros(outputs, np.int8), f"{name}_zero"))
    kind = onnx.TensorProto.FLOAT
    sources = []
    for name, array in inputs.items():
        dims = (f"{name}_{i}" for i in range(array.ndim))
        fixed = 1 if array.ndim == 4 else 2
        shape = [array.shape[i] if i == fixed else dim for i, dim in enumerate(dims)]
        sources.append(helper.make_tensor_value_info(name, kind, shape))
    results = [helper.make_tensor_value_info(f"{name}_y", kind, None) for name in stored]
    graph = helper.make_graph(nodes, "probe", sources, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
