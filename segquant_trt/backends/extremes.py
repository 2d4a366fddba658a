"""Sites whose sums are as large as they get: wrong ones show at once.

Activations are the codes 0 and 255, weights -127 and 127. A kernel that adds two products in 16
bits, or that pads with the wrong code, is off by percents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from segquant_trt.backends.base import Array
from segquant_trt.graph.qdq import dequantize_weight, quantize_pair, scalar_tensors

# Input channels, output channels, kernel, stride (kernels are chosen by these), and zero point.
_CONVOLUTIONS = (
    (32, 32, 3, 1, 128), (64, 128, 3, 1, 128), (64, 64, 3, 2, 128), (4, 32, 3, 1, 128),
    (64, 4, 3, 1, 128), (33, 17, 3, 1, 128), (64, 64, 5, 1, 128), (64, 64, 1, 1, 128),
    (32, 32, 3, 1, 0), (32, 32, 3, 1, 255),
)  # fmt: skip
_LINEARS = ((64, 64), (128, 32))
_SIDE = 12
_MIDDLE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """A graph, its inputs, and for every output the sums in int64 and the step of its codes.

    A step is 0 where an output is not requantised.
    """

    model: onnx.ModelProto
    inputs: dict[str, Array]
    sums: dict[str, Array]
    steps: dict[str, float]


def extremes(*, requantized: bool) -> Extremes:
    """Convolutions and linears; `requantized`: the outputs of convolutions are coded."""
    nodes: list[NodeProto] = []
    stored: dict[str, Array] = {}
    inputs: dict[str, Array] = {}
    sums: dict[str, Array] = {}
    steps: dict[str, float] = {}
    for index, (channels, outputs, kernel, stride, zero) in enumerate(_CONVOLUTIONS):
        name = f"convolution{index}"
        plane = _plane(zero)
        sign = np.where(np.arange(outputs) % 2, -127, 127)
        shape = (outputs, channels, kernel, kernel)
        stored[name] = np.broadcast_to(sign[:, None, None, None], shape).astype(np.int8)
        inputs[f"{name}_x"] = _tiled(plane, (1, channels))
        total = sign[None, :, None, None] * channels * _windows(plane, kernel, stride)
        sums[f"{name}_y"] = total
        steps[f"{name}_y"] = float(np.abs(total).max()) / 127.0 if requantized else 0.0
        nodes += _site(name, zero, "Conv", pads=[kernel // 2] * 4, strides=[stride] * 2)
    for index, (width, outputs) in enumerate(_LINEARS):
        name = f"linear{index}"
        plane = _plane(_MIDDLE)
        sign = np.where(np.arange(outputs) % 2, -127, 127)
        stored[name] = np.broadcast_to(sign, (width, outputs)).astype(np.int8)
        inputs[f"{name}_x"] = np.moveaxis(_tiled(plane[0], (1, width)), 1, 2)
        sums[f"{name}_y"] = plane[0][None, :, None] * width * sign
        steps[f"{name}_y"] = 0.0
        nodes += _site(name, _MIDDLE, "MatMul")
    model = _model(nodes, stored, inputs, steps)
    return Extremes(model=model, inputs=inputs, sums=sums, steps=steps)


def _plane(zero: int) -> Array:
    """Values of the codes 255 and 0."""
    plane = np.full((_SIDE, _SIDE), 255 - zero)
    plane[:, ::3] = -zero
    return plane


def _tiled(plane: Array, lead: tuple[int, ...]) -> Array:
    return np.broadcast_to(plane, (*lead, *plane.shape)).astype(np.float32)


def _windows(plane: Array, kernel: int, stride: int) -> Array:
    padded = np.pad(plane.astype(np.int64), kernel // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))
    return np.asarray(windows.sum(axis=(2, 3))[::stride, ::stride])


def _site(name: str, zero: int, operator: str, **attributes: list[int]) -> list[NodeProto]:
    source, weight = f"{name}_decoded", f"{name}_weight"
    axis = 0 if operator == "Conv" else 1
    node = helper.make_node(operator, [source, weight], [f"{name}_y"], name=name)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return [
        *quantize_pair(
            f"{name}_x", f"{name}_codes", source, scale="step", zero_point=f"offset{zero}"
        ),
        dequantize_weight((name, f"{name}_scale", f"{name}_zero"), weight, axis=axis),
        node,
    ]


def _model(
    nodes: list[NodeProto],
    stored: dict[str, Array],
    inputs: dict[str, Array],
    steps: dict[str, float],
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.array(1.0, dtype=np.float32), "step")]
    for zero in (0, _MIDDLE, 255):
        tensors.append(numpy_helper.from_array(np.array(zero, dtype=np.uint8), f"offset{zero}"))
    for name, codes in stored.items():
        outputs = codes.shape[0] if codes.ndim == 4 else codes.shape[1]
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(codes), name))
        tensors.append(numpy_helper.from_array(np.ones(outputs, np.float32), f"{name}_scale"))
        tensors.append(numpy_helper.from_array(np.zeros(outputs, np.int8), f"{name}_zero"))
    coded: list[NodeProto] = []
    for result, step in steps.items():
        if step:
            names = (f"{result}_step", f"{result}_offset")
            tensors += scalar_tensors(step, _MIDDLE, names=names)
            inner = f"{result}_float"
            maker = next(node for node in nodes if node.output[0] == result)
            maker.output[0] = inner
            coded += quantize_pair(
                inner, f"{result}_codes", result, scale=names[0], zero_point=names[1]
            )
    kind = onnx.TensorProto.FLOAT
    sources = []
    for name, array in inputs.items():
        dims = (f"{name}_{i}" for i in range(array.ndim))
        fixed = 1 if array.ndim == 4 else 2
        shape = [array.shape[i] if i == fixed else dim for i, dim in enumerate(dims)]
        sources.append(helper.make_tensor_value_info(name, kind, shape))
    results = [helper.make_tensor_value_info(f"{name}_y", kind, None) for name in stored]
    graph = helper.make_graph([*nodes, *coded], "probe", sources, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
