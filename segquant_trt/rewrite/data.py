"""Write the data of a rewritten graph, one tensor at a time: memory does not grow with the model.

Integer codes and their scales come first, in the order of the sites; then biases and other float
tensors; then every remaining initializer in its stored dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from segquant_trt.backends.emission import (
    Arrays,
    Correction,
    FloatTensor,
    SegLinearData,
    StoredWeight,
    WeightCodes,
    check_finite,
    float_tensor,
    site_codes,
    stored_weight,
)
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.schemes import QuantizedWeight
from segquant_trt.schemes.packing import pack_int4


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphData:
    """Initializers of a rewritten graph that are yet to be computed."""

    weights: tuple[WeightCodes, ...]
    floats: tuple[FloatTensor, ...]
    seg_linear: tuple[SegLinearData, ...] = ()
    corrections: tuple[Correction, ...] = ()


def write_data(
    model: onnx.ModelProto,
    source: Weights,
    data: GraphData,
    codes: StoredCodes,
    writer: PayloadWriter,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Replace the initializers of `model` by tensors whose data `writer` has stored.

    Args:
        model: the rewritten graph; `data` is not among its initializers yet.
        source: the float graph's initializers.
        data: to be computed.
        codes: of weights, as far as other graphs with this data have them.
        writer: where the data goes.
        on_progress: told weights written and weights in all.

    Raises:
        SegQuantError: naming a weight with NaN or infinity, or whose file is too short.
    """
    stored = codes.of(data.weights, on_progress)
    for call in data.seg_linear:
        stored.extend(_seg_linear(call, source, codes.arrays, writer))
    for correction in data.corrections:
        stored.append(writer.put(correction.name, _correction(correction, source, codes.arrays)))
    for wanted in data.floats:
        stored.append(writer.put(wanted.name, float_tensor(wanted, source)))
    for tensor in model.graph.initializer:
        if tensor.name not in source:
            stored.append(writer.put(tensor.name, numpy_helper.to_array(tensor)))
            continue
        array = source.read(tensor.name)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            check_finite(tensor.name, array)
        stored.append(writer.put(tensor.name, array))
    rebuilt = onnx.GraphProto(initializer=stored)
    del model.graph.initializer[:]
    model.graph.initializer.extend(rebuilt.initializer)


def with_promised(model: onnx.ModelProto, data: GraphData) -> onnx.ModelProto:
    """A copy of `model` that declares the initializers to be computed, for shape inference."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kinds = onnx.TensorProto
    for tensor in data.floats:
        copy.graph.initializer.add(
            name=tensor.name, dims=tensor.shape, data_type=kinds.FLOAT, data_location=kinds.EXTERNAL
        )
    for correction in data.corrections:
        copy.graph.initializer.add(
            name=correction.name,
            dims=correction.shape,
            data_type=kinds.FLOAT,
            data_location=kinds.EXTERNAL,
        )
    for weight in data.weights:
        dims = weight.dims
        blocks = None if weight.block is None else -(-dims[0] // weight.block)
        channels = dims[weight.channel_axis]
        scale = (channels,) if blocks is None else (blocks, channels)
        bits = 8 if weight.treatment.weight is None else weight.treatment.weight.bits
        kind = kinds.INT8 if bits == 8 else kinds.INT4
        for name, shape, data_type in (
            (weight.codes, dims, kind),
            (weight.scale, scale if weight.relative is None else (), kinds.FLOAT),
            (weight.relative, weight.column, kinds.FLOAT),
            (weight.zero_point, (channels,) if weight.relative is None else (), kind),
        ):
            if name is not None:
                copy.graph.initializer.add(
                    name=name, dims=shape, data_type=data_type, data_location=kinds.EXTERNAL
                )
    return copy


class StoredCodes:
    """Equal codes are stored once, and computed once where they follow each other.

    Args:
        source: the float graph's initializers.
        arrays: what the plan names by key.
        writer: where the data goes.
    """

    def __init__(self, source: Weights, arrays: Arrays, writer: PayloadWriter) -> None:
        self.arrays = arrays
        self._source = source
        self._writer = writer
        self._shared: dict[object, list[onnx.TensorProto]] = {}

    def of(
        self,
        weights: Sequence[WeightCodes],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[onnx.TensorProto]:
        """The initializers of `weights`: codes, scales and zero points."""
        stored: list[onnx.TensorProto] = []
        last: tuple[object, tuple[QuantizedWeight, ...]] | None = None
        for index, weight in enumerate(weights):
            if on_progress is not None:
                on_progress(index, len(weights))
            site = weight.site
            whole = (site.weight, site.weight_layout, site.op, weight.treatment)
            key = (whole, weight.segment, _limits(weight))
            if key not in self._shared:
                if last is None or last[0] != whole:
                    last = None
                    last = whole, site_codes(site, weight.treatment, self._source, self.arrays)
                found = stored_weight(weight, last[1], self._source)
                self._shared[key] = _put(found, weight, self._writer)
            names = [weight.codes, weight.scale]
            names += [name for name in (weight.relative, weight.zero_point) if name is not None]
            stored.extend(
                _renamed(t, name) for t, name in zip(self._shared[key], names, strict=False)
            )
        return stored


def scalar_scale(scales: npt.NDArray[np.float32]) -> np.float32:
    """The power of two that is not below any of the scales.

    Products are then of the size of the channel with the largest one; linears that read the same
    codes mostly have the same scalar, and builders make one product of them.
    """
    largest = max(float(scales.max(initial=0.0)), float(np.finfo(np.float16).tiny))
    found: np.float32 = np.float32(math.ldexp(1.0, math.ceil(math.log2(largest))))
    return found


def _limits(weight: WeightCodes) -> object:
    """What the stored scales depend on beside the site's codes."""
    gain = None if weight.gain is None else weight.gain.tobytes()
    bias = weight.integer_bias
    if bias is None:
        return gain, None
    shift = None if bias.shift is None else bias.shift.tobytes()
    return gain, (bias.source, shift, bias.step)


def _put(found: StoredWeight, weight: WeightCodes, writer: PayloadWriter) -> list[onnx.TensorProto]:
    if weight.relative is not None:
        scalar = scalar_scale(found.scale)
        relative = (found.scale / scalar).reshape(weight.column)
        arrays = (found.codes, np.array(scalar), relative, np.array(0, dtype=np.int8))
        return [writer.put("", array) for array in arrays]
    zeros = np.zeros(found.scale.shape[-1], dtype=np.int8)
    if found.bits == 8:
        return [writer.put("", array) for array in (found.codes, found.scale, zeros)]
    kind = onnx.TensorProto.INT4
    return [
        writer.put_packed("", pack_int4(found.codes), dims=found.codes.shape, data_type=kind),
        writer.put("", found.scale),
        writer.put_packed("", pack_int4(zeros), dims=zeros.shape, data_type=kind),
    ]


def _seg_linear(
    call: SegLinearData, source: Weights, arrays: Arrays, writer: PayloadWriter
) -> list[onnx.TensorProto]:
    site = call.parts[0].site
    found = site_codes(site, call.parts[0].treatment, source, arrays)
    parts = [stored_weight(part, found, source) for part in call.parts]
    correction = np.zeros(site.out_features, dtype=np.float64)
    for segment, offset in call.steps:
        sums = parts[segment].codes.sum(axis=0, dtype=np.int64)
        correction += np.float64(offset) * sums * parts[segment].scale
    arrays_by_name: dict[str, npt.NDArray[np.generic]] = {
        call.codes: np.concatenate([part.codes for part in parts]),
        call.scale: np.stack([part.scale for part in parts]),
        call.correction: correction.astype(np.float32),
    }
    return [writer.put(name, array) for name, array in arrays_by_name.items()]


def _correction(wanted: Correction, source: Weights, arrays: Arrays) -> npt.NDArray[np.float32]:
    weight = wanted.weight
    found = site_codes(weight.site, weight.treatment, source, arrays)
    stored = stored_weight(weight, found, source)
    channels = np.moveaxis(stored.codes, weight.channel_axis, 0)
    sums = channels.reshape(len(channels), -1).sum(axis=1, dtype=np.int64)
    values = np.float64(wanted.offset) * sums * stored.scale
    return np.asarray(values, dtype=np.float32).reshape(wanted.shape)


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Another initializer with the same bytes, stored once when they are external."""
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
