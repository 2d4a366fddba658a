"""Compile an ONNX graph with OpenVINO, weights by reference, and run it from any thread.

OpenVINO follows no external data out of the graph's own folder. So large initializers become graph
inputs before the graph is handed over, and constants over memory-mapped files afterwards.
"""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from segquant_trt.backends.base import Array, Runner
from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.graph.bigfile import Weights, external_range
from segquant_trt.records import TensorSpec

_BY_REFERENCE_BYTES = 1 << 16


def openvino_module() -> Any:
    """OpenVINO itself.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "openvino", extra="openvino", why="the target 'openvino'"
        ) from error
    return openvino


@functools.cache
def core() -> Any:
    """The process's OpenVINO core.

    Raises:
        MissingDependencyError: OpenVINO is not installed.
    """
    return openvino_module().Core()


def float_session(
    model: onnx.ModelProto | bytes, folder: Path, *, threads: int | None = None
) -> Runner:
    """Open a float graph whose external data is in `folder`.

    Raises:
        SegQuantError: OpenVINO refuses the graph.
        MissingDependencyError: OpenVINO is not installed.
    """
    parsed = onnx.ModelProto.FromString(model) if isinstance(model, bytes) else model
    return Session(compile_graph(parsed, folder, {}, threads=threads))


def compile_graph(
    model: onnx.ModelProto, folder: Path, arrays: Mapping[str, Array], *, threads: int | None
) -> Any:
    """An OpenVINO CompiledModel for the CPU, everything but integer layers in float32.

    Args:
        model: the graph; not modified.
        folder: where its external data is.
        arrays: initializers that replace those of the graph.
        threads: inference threads; all cores when None.

    Raises:
        SegQuantError: OpenVINO refuses the graph.
    """
    inlined, large = _by_reference(model, folder, arrays)
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        network = core().read_model(io.BytesIO(inlined.SerializeToString()))
        _bind(network, large)
        compiled = core().compile_model(network, "CPU", settings)
        # Some kernels unpack four-bit codes at the first call, from memory that is not theirs.
        compiled.constants = large
        return compiled
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise SegQuantError(
            f"OpenVINO refuses the graph: {' '.join(lines[-2:])}",
            hint="choose the target 'onnxruntime', or run the stage that wrote the graph again",
        ) from error


def _by_reference(
    model: onnx.ModelProto, folder: Path, arrays: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The graph with small initializers inline and large ones as inputs, and the large ones."""
    weights = Weights(model, folder)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    large: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        array = arrays.get(tensor.name)
        if weights.size_bytes(tensor.name) <= _BY_REFERENCE_BYTES:
            small = weights.read(tensor.name) if array is None else array
            copy.graph.initializer.append(numpy_helper.from_array(np.array(small), tensor.name))
            continue
        large[tensor.name] = _mapped(tensor, weights, folder) if array is None else array
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        copy.graph.input.append(value)
    return copy, large


def _mapped(tensor: onnx.TensorProto, weights: Weights, folder: Path) -> Array:
    """Private copy-on-write pages: OpenVINO wants a writeable buffer, and never writes.

    Codes of four bits stay packed: uint8, with as many elements as bytes.
    """
    place = external_range(tensor)
    if place is None:
        return np.array(weights.read(tensor.name))
    packed = tensor.data_type == onnx.TensorProto.INT4
    weights.check(tensor.name)
    return np.memmap(
        folder / place.location,
        dtype=np.uint8 if packed else weights.dtype(tensor.name),
        mode="c",
        offset=place.offset,
        shape=(weights.size_bytes(tensor.name),) if packed else weights.shape(tensor.name),
    )


def _constant(array: Array, shape: Sequence[int], element_type: Any) -> Any:
    from openvino import Shape, Tensor, Type
    from openvino.op import Constant

    if element_type == Type.i4:
        return Constant(Tensor(array, Shape(shape), Type.i4), shared_memory=True)
    if array.dtype.name != "bfloat16":
        return Constant(array, shared_memory=True)
    # OpenVINO does not know NumPy's extension type, but takes its bits.
    tensor = Tensor(array.view(np.uint16), Shape(array.shape), Type.bf16)
    return Constant(tensor, shared_memory=True)


def _bind(network: Any, large: Mapping[str, Array]) -> None:
    for parameter in network.get_parameters():
        found = large.keys() & parameter.output(0).get_names()
        if found:
            name = found.pop()
            port = parameter.output(0)
            constant = _constant(large[name], port.get_shape(), port.get_element_type())
            constant.set_friendly_name(name)
            parameter.output(0).replace(constant.output(0))
            network.remove_parameter(parameter)
    network.validate_nodes_and_infer_types()


class Session:
    """A compiled graph; every thread has its own inference request."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.inputs: tuple[TensorSpec, ...] = tuple(_spec(port) for port in compiled.inputs)
        self._outputs = {name: port for port in compiled.outputs for name in port.get_names()}
        self._names = tuple(min(port.get_names()) for port in compiled.outputs)
        self._local = threading.local()

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name, copied out of the request's buffers."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self.compiled.create_infer_request()
        found = request.infer({name: np.asarray(x, order="C") for name, x in inputs.items()})
        names = self._names if outputs is None else outputs
        return {name: np.array(found[self._outputs[name]]) for name in names}


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        axis.get_length() if axis.is_static else str(axis) for axis in port.get_partial_shape()
    )
    dtype = np.dtype(port.get_element_type().to_dtype()).name
    return TensorSpec(name=port.get_any_name(), dtype=dtype, shape=shape)
