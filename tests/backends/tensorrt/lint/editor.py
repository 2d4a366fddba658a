"""Changes a graph in place: the tools that mutations are made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.backends.tensorrt.lint.sketch import PRODUCTS

_NUMPY = {1: np.float32, 10: np.float16, 16: ml_dtypes.bfloat16}


class NotApplicable(Exception):
    """The graph has no place for the mutation."""


class Editor:
    """A copy of a model, and one random choice after the other."""

    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.kind = self.graph.input[0].type.tensor_type.elem_type

    # What is there ---------------------------------------------------------------------------

    def choose(self, found: list[Any]) -> Any:
        if not found:
            raise NotApplicable
        return found[int(self.rng.integers(len(found)))]

    def maker(self, tensor: str) -> NodeProto | None:
        return next((node for node in self.graph.node if tensor in node.output), None)

    def initializer(self, name: str) -> TensorProto:
        found = next((t for t in self.graph.initializer if t.name == name), None)
        if found is None:
            raise NotApplicable
        return found

    def value(self, name: str) -> np.ndarray[Any, Any]:
        return np.asarray(numpy_helper.to_array(self.initializer(name)))

    def nodes(self, *kinds: str) -> list[NodeProto]:
        return [node for node in self.graph.node if node.op_type in kinds]

    def products(self) -> list[NodeProto]:
        """Products with a coded operand."""
        return [n for n in self.nodes(*PRODUCTS) if any(self.decode(n, i) for i in (0, 1))]

    def decode(self, node: NodeProto, place: int) -> NodeProto | None:
        made = self.maker(node.input[place])
        return made if made is not None and made.op_type == "DequantizeLinear" else None

    def pairs(self) -> list[tuple[NodeProto, NodeProto]]:
        """QuantizeLinear and DequantizeLinear of every activation."""
        found = []
        for node in self.nodes("DequantizeLinear"):
            encode = self.maker(node.input[0])
            if encode is not None and encode.op_type == "QuantizeLinear":
                found.append((encode, node))
        return found

    def weights(self, *kinds: str) -> list[tuple[NodeProto, NodeProto]]:
        """Products of these kinds with a constant coded weight, and its DequantizeLinear."""
        found = []
        for node in self.nodes(*(kinds or PRODUCTS)):
            decode = self.decode(node, 1)
            if decode is not None and self.maker(decode.input[0]) is None:
                found.append((node, decode))
        return found

    # What is changed -------------------------------------------------------------------------

    def fresh(self) -> str:
        self.count += 1
        return f"new{self.count}"

    def constant(self, values: Any, kind: int | None = None) -> str:
        name, array = self.fresh(), np.asarray(values)
        if kind is None:
            self.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            tensor = helper.make_tensor(name, kind, array.shape, array.reshape(-1))
            self.graph.initializer.append(tensor)
        return name

    def floats(self, values: Any, kind: int | None = None) -> str:
        dtype = _NUMPY[kind or self.kind]
        return self.constant(np.asarray(values, dtype=np.float32).astype(dtype))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def input(self, kind: int, *dims: int | str) -> str:
        name = self.fresh()
        self.graph.input.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def add(self, before: NodeProto, op: str, *inputs: str, **attributes: Any) -> str:
        """A new node in front of another; the name of what it makes."""
        made = self.fresh()
        node = helper.make_node(op, inputs, [made], name=f"{op}_{made}", **attributes)
        at = list(self.graph.node).index(before)
        self.graph.node.insert(at, node)
        return made

    def behind(self, node: NodeProto, op: str, *more: str, left: bool = False, **attributes: Any):
        """`op` of the node's output, read by all that read the output before; its node."""
        old, new = node.output[0], self.fresh()
        for reader in self.graph.node:
            for place, name in enumerate(reader.input):
                if name == old:
                    reader.input[place] = new
        for value in self.graph.output:
            if value.name == old:
                value.name = new
        inputs = [*more, old] if left else [old, *more]
        made = helper.make_node(op, inputs, [new], name=f"{op}_{new}", **attributes)
        at = list(self.graph.node).index(node)
        self.graph.node.insert(at + 1, made)
        return self.graph.node[at + 1]

    def remove(self, node: NodeProto, instead: str) -> None:
        """Take the node out; its readers read `instead`."""
        for reader in self.graph.node:
            for place, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[place] = instead
        self.graph.node.remove(node)

    def set(self, node: NodeProto, name: str, value: Any) -> None:
        for found in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(found)
        node.attribute.append(helper.make_attribute(name, value))

    def rescale(self, pair: tuple[NodeProto, ...], scale: str, zero: str | None = None) -> None:
        for node in pair:
            node.input[1] = scale
            if zero is not None:
                node.input[2] = zero


Mutation = Callable[[Editor], None]


def codes_of(e: Editor, name: str) -> int:
    return e.initializer(name).data_type


def contraction(e: Editor, pair: tuple[onnx.NodeProto, ...]) -> tuple[int, int]:
    """Length and axis of the contraction that reads the pair."""
    for node, decode in e.weights():
        if node.input[0] == pair[1].output[0]:
            dims = e.initializer(decode.input[0]).dims
            if node.op_type == "Conv":
                return dims[1], 1
            return (dims[1] if node.op_type == "Gemm" else dims[0]), -1
    raise NotApplicable
