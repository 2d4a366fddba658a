"""Find out how OpenVINO's int8 sums become exact on this CPU, by computing extreme ones.

Its kernels differ by CPU, and some are silently wrong. Without VNNI (AVX2, plain AVX-512), oneDNN
multiplies uint8 by int8 with vpmaddubsw, which adds two products in 16 bits and saturates:
2 * 255 * 127 does not fit. Measured on AVX2: a UNet whose plan is worth 26 dB came out at 8 dB;
every linear and convolution alone was off by 10 to 30 %, except depthwise ones, which add no
pairs; and all were exact with weights within -64..64. Weights in two halves repair it (`split`).

Padding is the other danger: a convolution of codes around a zero point must pad with that zero
point, and oneDNN had a defect there (its issue 5080: an offset of 128 forgotten). Padding in front
of the codes (`padding`) does without it. Whatever the cause, a way is used only if its sums are
right.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import onnx

from segquant_trt.backends.base import Array
from segquant_trt.backends.extremes import extremes
from segquant_trt.backends.openvino.padding import pad_explicitly
from segquant_trt.backends.openvino.session import Session, compile_graph
from segquant_trt.backends.openvino.split import split_weights
from segquant_trt.errors import SegQuantError

Way = Literal["native", "split", "padded", "split and padded"]
WAYS: tuple[Way, ...] = ("native", "split", "padded", "split and padded")

_FLOAT32_ROUNDING = 1e-6
_NONE: Mapping[str, Array] = MappingProxyType({})


@functools.cache
def exact_way() -> Way:
    """The first way in `WAYS` whose sums are right on this CPU.

    Raises:
        SegQuantError: none is.
    """
    probe = extremes(requantized=False)
    for way in WAYS:
        graph, arrays = prepared(probe.model, Path(), way)
        found = Session(compile_graph(graph, Path(), arrays, threads=1)).run(probe.inputs)
        if all(_right(found[name], sums) for name, sums in probe.sums.items()):
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
