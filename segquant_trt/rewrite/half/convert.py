"""Write a float32 graph as one that computes in float16, tensor by tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.graph.wiring import Wiring
from segquant_trt.rewrite.half.islands import LARGEST, Island
from segquant_trt.rewrite.half.retype import HalveFloats
from segquant_trt.schemes.packing import pack_int4

_SMALLEST_NORMAL = np.float32(2.0**-14)
_SMALLEST = np.float32(2.0**-24)

Array = npt.NDArray[np.generic]


def halve(
    model: onnx.ModelProto,
    folder: Path,
    writer: PayloadWriter,
    largest: Mapping[str, float],
) -> tuple[Island, ...]:
    """Edit the graph in place; its data is read from `folder` and stored by `writer`.

    Scales below the normal numbers of float16 are rounded up, and their codes made anew, so that
    they decode to what they did.

    Args:
        model: a float32 graph, with or without codes.
        folder: where its external data is.
        writer: where the new data goes.
        largest: magnitudes that tensors were seen with; others are taken to fit.

    Returns:
        The nodes that stayed in float32.

    Raises:
        SegQuantError: a weight is beyond float16, or the graph cannot be typed.
    """
    source = Weights(model, folder)
    typing = HalveFloats(largest)
    typing.run(model)
    raised = _raised_scales(Wiring(model.graph), typing.halved, source)
    stored = []
    for tensor in model.graph.initializer:
        array = source.read(tensor.name)
        if tensor.data_type == onnx.TensorProto.INT4:
            dims, kind = tuple(tensor.dims), tensor.data_type
            packed = pack_int4(array.astype(np.int8))
            stored.append(writer.put_packed(tensor.name, packed, dims=dims, data_type=kind))
            continue
        if tensor.name in raised:
            array = raised[tensor.name](array)
        elif tensor.name in typing.halved:
            array = _half(tensor.name, array)
        stored.append(writer.put(tensor.name, array))
    rebuilt = onnx.GraphProto(initializer=stored)
    del model.graph.initializer[:]
    model.graph.initializer.extend(rebuilt.initializer)
    return typing.islands


def _half(name: str, array: Array) -> Array:
    values = np.asarray(array, dtype=np.float32)
    worst = float(np.abs(values).max(initial=0.0))
    if not worst <= LARGEST:
        raise SegQuantError(
            f"weight '{name}' holds {worst:g}, and float16 ends at {LARGEST:g}",
            hint="keep the sites around it in float on a CPU target; such a model has no float16 "
            "form",
        )
    result: Array = values.astype(np.float16)
    return result


def _raised_scales(
    wiring: Wiring, halved: frozenset[str], source: Weights
) -> dict[str, Callable[[Array], Array]]:
    """What to do with scales that float16 holds coarsely or not at all, and with their codes."""
    found: dict[str, Callable[[Array], Array]] = {}
    for node in wiring.nodes:
        codes, scale = (*node.input, "", "")[:2]
        if node.op_type != "DequantizeLinear" or codes not in source or scale not in halved:
            continue
        exact = np.asarray(source.read(scale), dtype=np.float32)
        if (exact >= _SMALLEST_NORMAL).all() or source.dtype(codes) != np.int8:
            continue
        stored = _rounded_up(exact)
        axis = int_attribute(node, "axis", 1) if exact.ndim else 0
        found[scale] = functools.partial(_instead, stored.astype(np.float16))
        found[codes] = functools.partial(_recoded, ratio=exact / stored, axis=axis)
    return found


def _rounded_up(exact: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The float16 numbers that are not below `exact` where that is not a normal number."""
    near = exact.astype(np.float16).astype(np.float32)
    above = np.maximum(near + _SMALLEST, _SMALLEST)
    small = exact < _SMALLEST_NORMAL
    return np.where(
        small & (near < exact), above, np.where(small, np.maximum(near, _SMALLEST), near)
    )


def _instead(new: Array, _: Array) -> Array:
    return new


def _recoded(codes: Array, *, ratio: npt.NDArray[np.float32], axis: int) -> Array:
    whole = np.asarray(codes, dtype=np.float32)
    shape = [1] * codes.ndim
    if ratio.ndim:
        shape[axis] = -1
    result: Array = np.rint(whole * ratio.reshape(shape)).astype(np.int8)
    return result
