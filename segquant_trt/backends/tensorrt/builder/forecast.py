"""How much memory a build and its engine will take, from the graph alone: an estimate.

Activations are counted as if every value of the graph were stored from its node to its last
reader. Fusion stores fewer, reformatting and workspace more; TensorRT's own figure replaces the
estimate as soon as there is an engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.shapes import Shapes, infer_shapes
from segquant_trt.graph.wiring import Wiring, read_tensors
from segquant_trt.records.engine import BuildOptions, ShapeProfile

_HOST_COPIES = 2  # what the parser holds, and the engine that is being serialised
_BITS: dict[int, int] = {
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
}
_SMALL_BITS = 16  # where nothing tells an inner value's type
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Estimates in bytes. `unknown_values`: inner tensors whose size could not be told.

    `activations_bytes` is the largest over the profiles, at their largest shapes.
    """

    weights_bytes: int
    activations_bytes: int
    io_bytes: int
    workspace_bytes: int | None
    unknown_values: int

    @property
    def engine_file_bytes(self) -> int:
        """The engine on disk, when its weights stay in it."""
        return self.weights_bytes

    @property
    def device_run_bytes(self) -> int:
        """On the GPU: weights, and one execution context with its inputs and outputs."""
        return self.weights_bytes + self.activations_bytes + self.io_bytes

    @property
    def device_build_bytes(self) -> int:
        """On the GPU while building: the same, and the workspace that tactics may try."""
        return self.device_run_bytes + (self.workspace_bytes or 0)

    @property
    def host_build_bytes(self) -> int:
        """In this machine's memory while building."""
        return _HOST_COPIES * self.weights_bytes

    def lines(self) -> tuple[str, ...]:
        """For people."""
        unknown = self.unknown_values
        workspace = (
            "all that is free" if self.workspace_bytes is None else _gib(self.workspace_bytes)
        )
        return (
            "memory (estimate from the graph, not measured):",
            f"  weights               {_gib(self.weights_bytes)}",
            f"  activations, peak     {_gib(self.activations_bytes)}",
            f"  inputs and outputs    {_gib(self.io_bytes)}",
            f"  workspace limit       {workspace}",
            f"  GPU, running          {_gib(self.device_run_bytes)}",
            f"  host, building        {_gib(self.host_build_bytes)}",
            *(() if not unknown else (f"  ({unknown} inner values of unknown size not counted)",)),
        )


def forecast(
    model: onnx.ModelProto, folder: Path, profiles: Sequence[ShapeProfile], options: BuildOptions
) -> MemoryForecast:
    """What building and running a graph takes, at the largest shapes of the profiles.

    Args:
        model: opened without its external data.
        folder: where that data is; its sizes are read, not its content.
        profiles: none where the graph is static.
        options: of the build.
    """
    weights = Weights(model, folder)
    peaks = [_peaks(model, folder, profile) for profile in profiles or (ShapeProfile(inputs=()),)]
    workspace = [each.size_bytes for each in options.pools if each.pool == "workspace"]
    return MemoryForecast(
        weights_bytes=sum(weights.size_bytes(name) for name in weights),
        activations_bytes=max(peak for peak, _, _ in peaks),
        io_bytes=max(io for _, io, _ in peaks),
        workspace_bytes=workspace[0] if workspace else None,
        unknown_values=max(unknown for _, _, unknown in peaks),
    )


def check_memory(
    estimate: MemoryForecast, device: str, free_bytes: int, options: BuildOptions
) -> None:
    """Refuse a build whose engine would not fit, before it takes minutes to fail.

    Raises:
        SegQuantError: weights and activations are more than the GPU's free memory.
    """
    needed = estimate.device_run_bytes
    if options.weight_streaming:
        needed -= estimate.weights_bytes
    if needed > free_bytes:
        streaming = "" if options.weight_streaming else ", allow weight streaming"
        raise SegQuantError(
            f"the engine is estimated to need {_gib(needed)} on {device} (weights "
            f"{_gib(estimate.weights_bytes)}, activations {_gib(estimate.activations_bytes)}), "
            f"where {_gib(free_bytes)} are free",
            hint=f"lower --maxShapes{streaming}, or free the GPU; --dry-run shows the estimate",
        )


def _peaks(model: onnx.ModelProto, folder: Path, profile: ShapeProfile) -> tuple[int, int, int]:
    """Peak of inner values, bytes of inputs and outputs, and how many sizes are unknown."""
    fixed = _with_largest_shapes(model, profile)
    wiring = Wiring(fixed.graph)
    shapes = infer_shapes(fixed, wiring, Constants(wiring, folder))
    types = _types(fixed)
    ends = [value.name for value in (*fixed.graph.input, *fixed.graph.output)]
    sizes = {name: _size(name, shapes, types) for name in _stored(wiring, {*ends})}
    peak = _peak(wiring, {name: size or 0 for name, size in sizes.items()})
    io = sum(_size(name, shapes, types) or 0 for name in ends if name not in wiring.constants)
    return peak, io, sum(size is None for size in sizes.values())


def _stored(wiring: Wiring, ends: set[str]) -> Iterator[str]:
    """Inner values that take memory: not what follows from constants, nor decoded codes.

    A DequantizeLinear is computed inside of what reads it.
    """
    constant = {"", *wiring.constants}
    for node in wiring.nodes:
        if all(name in constant for name in read_tensors(node)):
            constant.update(node.output)
        elif node.op_type != "DequantizeLinear":
            yield from (name for name in node.output if name and name not in ends)


def _peak(wiring: Wiring, sizes: Mapping[str, int]) -> int:
    last = _last_readers(wiring)
    live = peak = 0
    for position, node in enumerate(wiring.nodes):
        live += sum(sizes.get(name, 0) for name in node.output)
        peak = max(peak, live)
        gone = {*read_tensors(node), *node.output}
        live -= sum(sizes.get(name, 0) for name in gone if last.get(name, position) == position)
    return peak


def _last_readers(wiring: Wiring) -> dict[str, int]:
    last: dict[str, int] = {}
    for position, node in enumerate(wiring.nodes):
        # Codes are needed for as long as what is decoded from them.
        through = node.output if node.op_type == "DequantizeLinear" else ()
        for name in read_tensors(node):
            ends = (
                wiring.order[reader.output[0]]
                for out in through
                for reader in wiring.consumers.get(out, ())
            )
            last[name] = max(position, last.get(name, 0), *ends)
    return last


def _with_largest_shapes(model: onnx.ModelProto, profile: ShapeProfile) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        bounds = profile.of(value.name)
        if bounds is not None:
            dims = value.type.tensor_type.shape.dim
            for dim, length in zip(dims, bounds.maximum, strict=False):
                dim.dim_value = length
    return fixed


def _size(name: str, shapes: Shapes, types: Mapping[str, int]) -> int | None:
    shape = shapes.of(name)
    lengths = [length for length in shape or () if isinstance(length, int)]
    if shape is None or len(lengths) != len(shape):
        return None
    return (math.prod(lengths) * _bits(types.get(name)) + 7) // 8


def _bits(data_type: int | None) -> int:
    if not data_type:
        return _SMALL_BITS
    if data_type in _BITS:
        return _BITS[data_type]
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types by value: declared ones, and what follows from the operators."""
    graph = model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    for node in graph.node:
        for name in node.output:
            types.setdefault(name, _type_of_output(node, types))
    return types


def _type_of_output(node: onnx.NodeProto, types: Mapping[str, int]) -> int:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Cast":
        return attributes["to"].i
    if node.op_type == "QuantizeLinear":
        chosen = attributes["output_dtype"].i if "output_dtype" in attributes else 0
        zero = types.get(node.input[2], 0) if len(node.input) > 2 else 0
        return chosen or zero or onnx.TensorProto.UINT8
    if node.op_type == "Constant" and "value" in attributes:
        return attributes["value"].t.data_type
    if node.op_type in ("Shape", "Size"):
        return onnx.TensorProto.INT64
    # A decoded value has its scale's type; nearly all others have that of their first operand.
    position = 1 if node.op_type in ("DequantizeLinear", "Where") else 0
    return types.get(node.input[position], 0) if len(node.input) > position else 0


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.2f} GiB" if size_bytes >= _GIB // 8 else f"{size_bytes} bytes"
