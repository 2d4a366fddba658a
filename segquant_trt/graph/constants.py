"""Values of small constants: shapes, axes, indices, scalars. Weights are never read here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.wiring import Wiring

_MOST_ELEMENTS = 4096

Array = npt.NDArray[Any]


class Constants:
    """Reads constants of at most 4096 elements.

    Args:
        wiring: the graph that holds them.
        folder: where external files would be; they need not exist, their constants are then
            unknown.
    """

    def __init__(self, wiring: Wiring, folder: Path | None) -> None:
        self._tensors = wiring.constants
        self._external = _external(wiring, folder)
        self._known: dict[str, Array | None] = {}

    def array(self, name: str) -> Array | None:
        """The value of the constant `name`; None when it is none, large, or not at hand."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def integers(self, name: str) -> tuple[int, ...] | None:
        """The constant `name` as a flat tuple of integers."""
        array = self.array(name)
        if array is None or array.dtype.kind not in "iu":
            return None
        return tuple(int(value) for value in array.reshape(-1))

    def _read(self, name: str) -> Array | None:
        tensor = self._tensors.get(name)
        if tensor is None or math.prod(tensor.dims) > _MOST_ELEMENTS:
            return None
        try:
            if tensor.data_location == TensorProto.EXTERNAL:
                return None if self._external is None else np.array(self._external.read(name))
            return np.array(numpy_helper.to_array(tensor))
        except (SegQuantError, ValueError, TypeError):
            return None  # absent or damaged data says nothing about the graph's structure


def _external(wiring: Wiring, folder: Path | None) -> Weights | None:
    if folder is None:
        return None
    graph = onnx.GraphProto()
    small = (t for t in wiring.initializers.values() if math.prod(t.dims) <= _MOST_ELEMENTS)
    graph.initializer.extend(small)
    return Weights(onnx.ModelProto(graph=graph), folder)
