"""Float graphs of one site and of none, with random weights and inputs for a call."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segquant_trt.bench.costs.shapes import BATCH, Shape
from segquant_trt.models.loop import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_OPSET = 21
_NOTHING = Shape(op="linear", rows=BATCH, parts=(1,), outputs=1)


def write_one_site(shape: Shape, folder: Path) -> tuple[Path, dict[str, Array]]:
    """Write `model.onnx`: a site of `shape` from `x0`, `x1`, ... to `y`. Its path and inputs."""
    from onnx import helper

    random = np.random.default_rng(0)
    taps = (shape.kernel, shape.kernel) if shape.op == "convolution" else ()
    weight = random.normal(0.0, 0.02, (shape.outputs, shape.channels, *taps)).astype(np.float32)
    stored = weight if taps else np.ascontiguousarray(weight.T)
    bias = random.normal(0.0, 0.1, shape.outputs).astype(np.float32)
    inputs = _inputs(shape, random)
    names = [name for name in inputs if name != "timestep"]
    nodes: list[NodeProto] = []
    if len(names) > 1:
        axis = 1 if taps else 2
        nodes.append(helper.make_node("Concat", names, ["x"], name="join", axis=axis))
    nodes += _site_nodes(shape, "x" if len(names) > 1 else names[0])
    return _written(nodes, inputs, {"weight": stored, "bias": bias}, shape, folder), inputs


def write_empty(folder: Path) -> tuple[Path, dict[str, Array]]:
    """Write `model.onnx` that hands two numbers on as `y`: a call of it costs what every call does.

    Returns:
        Its path and inputs.
    """
    from onnx import helper

    inputs = _inputs(_NOTHING, np.random.default_rng(0))
    nodes = [helper.make_node("Identity", ["x0"], ["y"], name="nothing")]
    return _written(nodes, inputs, {}, _NOTHING, folder), inputs


def _inputs(shape: Shape, random: np.random.Generator) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for index, channels in enumerate(shape.parts):
        if shape.op == "linear":
            dims: tuple[int, ...] = (BATCH, shape.rows // BATCH, channels)
        else:
            side = isqrt(shape.rows // BATCH)
            dims = (BATCH, channels, side, side)
        inputs[f"x{index}"] = random.standard_normal(dims, dtype=np.float32)
    inputs["timestep"] = np.array([100.0, 600.0], dtype=np.float32)
    return inputs


def _site_nodes(shape: Shape, source: str) -> list[NodeProto]:
    from onnx import helper

    if shape.op == "convolution":
        pads = [shape.kernel // 2] * 4
        return [helper.make_node("Conv", [source, "weight", "bias"], ["y"], name="site", pads=pads)]
    return [
        helper.make_node("MatMul", [source, "weight"], ["product"], name="site"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="site/bias"),
    ]


def _written(
    nodes: list[NodeProto],
    inputs: Mapping[str, Array],
    stored: Mapping[str, Array],
    shape: Shape,
    folder: Path,
) -> Path:
    import onnx
    from onnx import helper

    # Row factors per step read the timestep, so it has to be an input of a valid graph.
    used = [*nodes, helper.make_node("Identity", ["timestep"], ["unused"], name="unused")]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(_model(used, inputs, stored, shape), path)
    return path


def _model(
    nodes: list[NodeProto],
    inputs: Mapping[str, Array],
    stored: Mapping[str, Array],
    shape: Shape,
) -> ModelProto:
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT
    channel_axis = 2 if shape.op == "linear" else 1
    sources = []
    for name, array in inputs.items():
        dims: list[int | str] = [f"axis{i}" for i in range(array.ndim)]
        if name != "timestep":
            dims[channel_axis] = array.shape[channel_axis]
        sources.append(helper.make_tensor_value_info(name, kind, dims))
    rank = 3 if shape.op == "linear" else 4
    results = [
        helper.make_tensor_value_info("y", kind, [f"out{i}" for i in range(rank)]),
        helper.make_tensor_value_info("unused", kind, ["axis0"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "one-site", sources, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
