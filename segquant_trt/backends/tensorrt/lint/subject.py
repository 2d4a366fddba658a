"""One file under examination: the graph with everything that rules ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto

from segquant_trt.backends.tensorrt.lint.element_types import element_types
from segquant_trt.backends.tensorrt.lint.finding import Target
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.attributes import DEFAULT_DOMAINS, int_attribute
from segquant_trt.graph.bigfile import Weights
from segquant_trt.graph.constant_weight import constant_expressions, constant_origin
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.shapes import Shapes, infer_shapes
from segquant_trt.graph.taint import input_dependence, value_operands
from segquant_trt.graph.wiring import Wiring

if TYPE_CHECKING:
    from segquant_trt.backends.tensorrt.lint.products import Product

PAIR = ("QuantizeLinear", "DequantizeLinear")
# Scales and zero points are of this size at most; weights are never read.
_MOST_VALUES = 2**20
# Random numbers take their operand's shape.
_SHAPED = frozenset({"RandomNormalLike", "RandomUniformLike"})

Array = npt.NDArray[Any]


class Subject:
    """A graph, the target that it shall be built for, and what follows from both.

    Args:
        model: with its local functions inlined.
        folder: where its external data would be.
        capability: compute capability, as 89.
        major: of the TensorRT version, None where it was not given.
        called: the nodes that call local functions, which are gone from `model`.
        waiting: nodes that wait for each other, which are gone from `model`, too.
        hollow: nodes without outputs, which are gone as well.
        plugins: operators that plugin libraries provide.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        folder: Path,
        *,
        called: tuple[NodeProto, ...] = (),
        waiting: tuple[NodeProto, ...] = (),
        hollow: tuple[NodeProto, ...] = (),
        target: Target,
        capability: int,
        major: int | None,
        plugins: frozenset[str] = frozenset(),
    ) -> None:
        self.model = model
        self.folder = folder
        self.called = called
        self.waiting = waiting
        self.hollow = hollow
        self.target = target
        self.capability = capability
        self.major = major
        self.plugins = plugins
        self.wiring = Wiring(model.graph)
        self.constants = Constants(self.wiring, folder)
        self.weights = Weights(model, folder)
        self._values: dict[str, Array | None] = {}

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators; 0 where the file imports none."""
        own = (e.version for e in self.model.opset_import if e.domain in DEFAULT_DOMAINS)
        return max(own, default=0)

    @cached_property
    def types(self) -> dict[str, int]:
        """Element type of every tensor that is known."""
        return element_types(self.wiring)

    @cached_property
    def foldable(self) -> frozenset[str]:
        """Tensors that are computed from constants alone."""
        return constant_expressions(self.wiring)

    @cached_property
    def varying(self) -> frozenset[str]:
        """Tensors whose values depend on an input."""
        return frozenset(name for name, taint in input_dependence(self.wiring).items() if taint)

    @cached_property
    def needed(self) -> frozenset[str]:
        """Tensors whose values an output depends on; what only gives a shape is not computed."""
        wanted = set(self.wiring.graph_outputs)
        for node in reversed(self.wiring.nodes):
            if not wanted.isdisjoint(node.output) and node.op_type not in _SHAPED:
                wanted.update(value_operands(node))
        return frozenset(wanted)

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of all tensors, as far as they can be told."""
        return infer_shapes(self.model, self.wiring, self.constants)

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """Every product that codes lead to."""
        from segquant_trt.backends.tensorrt.lint.products import find_products

        return find_products(self)

    def nodes(self, *op_types: str) -> Iterator[NodeProto]:
        """Nodes of the main graph of one of these types, whatever their domain."""
        return (node for node in self.wiring.nodes if node.op_type in op_types)

    def operand(self, node: NodeProto, place: int) -> str:
        """The input at `place`, empty where there is none."""
        return node.input[place] if len(node.input) > place else ""

    def values(self, name: str) -> Array | None:
        """Scales or zero points behind casts; None when they are computed, large or not there."""
        if name not in self._values:
            self._values[name] = self._read(name)
        return self._values[name]

    def rank(self, name: str) -> int | None:
        """How many axes the tensor has."""
        dims = self.shapes.of(name)
        return None if dims is None else len(dims)

    def _read(self, name: str) -> Array | None:
        origin = constant_origin(name, self.wiring)
        if origin is None:
            return None
        tensor = self.wiring.constants[origin[0]]
        if int(np.prod(tensor.dims, dtype=np.int64)) > _MOST_VALUES:
            return None
        try:
            array: Array = np.array(self.weights.read(origin[0]))
        except (SegQuantError, KeyError, ValueError, TypeError):
            array_or_none = self.constants.array(origin[0])
            if array_or_none is None:
                return None
            array = array_or_none
        for node in origin[1]:
            kind = int_attribute(node, "to", 0) if node.op_type == "Cast" else 0
            if kind:
                array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
        return array
