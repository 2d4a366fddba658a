"""Write the data of a rewritten graph, one tensor at a time: memory does not grow with the model.

Integer codes and their scales come first, in the order of the sites; then biases; then every
remaining float initializer in its stored dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.rewrite.emit import FloatBias, WeightCodes
from segquant_trt.schemes import quantize_weight

_CHUNK_ELEMENTS = 1 << 22
_BIAS_LIMIT = 2.0**30


def write_data(
    model: onnx.ModelProto,
    source: Weights,
    weights: Sequence[WeightCodes],
    biases: Sequence[FloatBias],
    writer: PayloadWriter,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Replace the initializers of `model` by tensors whose data `writer` has stored.

    Args:
        model: the rewritten graph; `weights` and `biases` are not among its initializers yet.
        source: the float graph's initializers.
        weights: codes to be computed.
        biases: float32 biases to be stored.
        writer: where the data goes.
        on_progress: told weights written and weights in all.

    Raises:
        SegQuantError: naming a weight with NaN or infinity, or whose file is too short.
    """
    stored: list[onnx.TensorProto] = []
    shared: dict[object, list[onnx.TensorProto]] = {}
    for index, weight in enumerate(weights):
        if on_progress is not None:
            on_progress(index, len(weights))
        limit = (weight.bias, weight.step) if weight.bias else None
        key = (weight.source, weight.transpose, weight.plan, limit)
        if key not in shared:
            shared[key] = _codes(weight, source, writer)
        names = (weight.codes, weight.scale, weight.zero_point)
        stored.extend(_renamed(t, name) for t, name in zip(shared[key], names, strict=True))
    for bias in biases:
        values = source.read_float32(bias.source)
        check_finite(bias.source, values)
        stored.append(writer.put(bias.name, values.reshape(bias.shape)))
    for tensor in model.graph.initializer:
        if tensor.name not in source:
            stored.append(tensor)
            continue
        array = source.read(tensor.name)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            check_finite(tensor.name, array)
        stored.append(writer.put(tensor.name, array))
    rebuilt = onnx.GraphProto(initializer=stored)
    del model.graph.initializer[:]
    model.graph.initializer.extend(rebuilt.initializer)


def _codes(weight: WeightCodes, source: Weights, writer: PayloadWriter) -> list[onnx.TensorProto]:
    values = source.read_float32(weight.source)
    check_finite(weight.source, values)
    shape = values.shape
    by_channel = values if weight.transpose or weight.channel_axis == 0 else values.T
    rows = np.ascontiguousarray(by_channel.reshape(by_channel.shape[0], -1))
    found = quantize_weight(rows, weight.plan, smallest=_smallest_scale(weight, source))
    codes = found.codes.reshape(shape) if weight.channel_axis == 0 else found.codes.T
    zeros = np.zeros(len(found.scale), dtype=np.int8)
    return [writer.put("", array) for array in (codes, found.scale, zeros)]


def _smallest_scale(weight: WeightCodes, source: Weights) -> npt.NDArray[np.float32] | None:
    """Scales at which the bias still fits int32: a channel of tiny weights would lose it."""
    if weight.bias is None:
        return None
    bias = np.abs(source.read_float32(weight.bias))
    smallest: npt.NDArray[np.float32] = bias / np.float32(weight.step * _BIAS_LIMIT)
    return smallest


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Another initializer with the same bytes, stored once when they are external."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def check_finite(name: str, values: npt.NDArray[np.generic]) -> None:
    """Refuse NaN and infinity.

    Raises:
        SegQuantError: naming the weight and the first offending index.
    """
    if values.dtype.kind not in "fV":
        return
    flat = values.reshape(-1)
    for start in range(0, flat.size, _CHUNK_ELEMENTS):
        finite = np.isfinite(flat[start : start + _CHUNK_ELEMENTS].astype(np.float32))
        if not finite.all():
            index = start + int(np.argmin(finite))
            raise SegQuantError(
                f"weight '{name}' holds {flat[index]} at element {index}",
                hint="the checkpoint is damaged; fetch it again, then export again",
            )
