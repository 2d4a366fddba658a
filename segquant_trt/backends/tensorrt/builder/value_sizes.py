"""How many bytes the values of a graph are, and which of them a GPU has to store at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto

from segquant_trt.graph.constants import Constants
from segquant_trt.graph.shapes import infer_shapes
from segquant_trt.graph.wiring import Wiring, read_tensors

_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4}
_UNTOLD_BITS = 16  # where nothing tells an inner value's type
_BEFORE_SOFTMAX = frozenset({"Add", "Sub", "Mul", "Div", "Where", "Cast"})
_BEHIND_SOFTMAX = frozenset({"Mul", "Div", "Cast", "QuantizeLinear", "DequantizeLinear", "Dropout"})


class ValueSizes:
    """Values of a graph whose inputs have fixed shapes.

    Args:
        model: opened without its external data.
        folder: where that data is; small constants are read from it.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self.wiring = Wiring(model.graph)
        self._shapes = infer_shapes(model, self.wiring, Constants(self.wiring, folder))
        self._types = _types(model)
        ends = (*model.graph.input, *model.graph.output)
        self.ends = tuple(each.name for each in ends if each.name not in self.wiring.constants)

    def size_bytes(self, name: str) -> int | None:
        """Bytes of a value; None where its shape is not known."""
        shape = self._shapes.of(name)
        lengths = [length for length in shape or () if isinstance(length, int)]
        if shape is None or len(lengths) != len(shape):
            return None
        return (math.prod(lengths) * _bits(self._types.get(name)) + 7) // 8

    @cached_property
    def folded(self) -> frozenset[str]:
        """Values that follow from constants alone."""
        found = set(self.wiring.constants)
        for node in self.wiring.nodes:
            if all(name in found for name in read_tensors(node)):
                found.update(name for name in node.output if name)
        return frozenset(found)

    def weights_bytes(self) -> int:
        """What is left of the constants: in the type that they are used in, codes as codes."""
        used = dict.fromkeys(
            name
            for node in self.wiring.nodes
            if not all(output in self.folded for output in node.output)
            for name in read_tensors(node)
            if name in self.folded
        )
        kept = dict.fromkeys(part for name in used for part in self._stored_as(name))
        return sum(self.size_bytes(name) or 0 for name in kept)

    def _stored_as(self, name: str) -> tuple[str, ...]:
        node = self.wiring.producer.get(name)
        while node is not None and node.op_type in ("Transpose", "Reshape", "Identity"):
            node = self.wiring.producer.get(node.input[0])
        if node is not None and node.op_type == "DequantizeLinear":
            return tuple(node.input[:2])
        return (name,)

    def stored(self) -> Iterator[str]:
        """Inner values that take memory.

        A DequantizeLinear is computed inside of what reads it, and fused attention stores neither
        scores nor probabilities.
        """
        without = {*self.folded, *self.ends, *self._scores(), ""}
        for node in self.wiring.nodes:
            if node.op_type != "DequantizeLinear":
                yield from (name for name in node.output if name not in without)

    def _scores(self) -> set[str]:
        found: set[str] = set()
        for node in self.wiring.nodes:
            if node.op_type == "Softmax":
                before, behind = self._upwards(node.input[0]), self._downwards(node.output[0])
                if before and behind:
                    found.update(before, behind)
        return found

    def _upwards(self, name: str) -> list[str]:
        """From the Softmax's input to the product that it comes from; empty where there is none."""
        names: list[str] = []
        node = self.wiring.producer.get(name)
        while node is not None:
            names.append(name)
            if node.op_type in ("MatMul", "Gemm"):
                return names
            if node.op_type not in _BEFORE_SOFTMAX:
                return []
            name = max(node.input, key=lambda each: self.size_bytes(each) or 0)
            node = self.wiring.producer.get(name)
        return []

    def _downwards(self, name: str) -> list[str]:
        names: list[str] = []
        while True:
            names.append(name)
            node = self.wiring.sole_consumer(name)
            if node is None or node.op_type not in {"MatMul", *_BEHIND_SOFTMAX}:
                return []
            if node.op_type == "MatMul":
                return names
            name = node.output[0]


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A copy whose inputs have these shapes."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        for dim, length in zip(
            value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False
        ):
            dim.dim_value = length
    return fixed


def _bits(data_type: int | None) -> int:
    if not data_type:
        return _UNTOLD_BITS
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


def _type_of_output(node: NodeProto, types: Mapping[str, int]) -> int:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Cast":
        return attributes["to"].i
    if node.op_type == "QuantizeLinear":
        chosen = attributes["output_dtype"].i if "output_dtype" in attributes else 0
        zero = types.get(node.input[2], 0) if len(node.input) > 2 else 0
        return chosen or zero or TensorProto.UINT8
    if node.op_type == "Constant" and "value" in attributes:
        return attributes["value"].t.data_type
    if node.op_type in ("Shape", "Size"):
        return TensorProto.INT64
    # A decoded value has its scale's type; nearly all others have that of their first operand.
    position = 1 if node.op_type in ("DequantizeLinear", "Where") else 0
    return types.get(node.input[position], 0) if len(node.input) > position else 0
