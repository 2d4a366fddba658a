"""Who produces and who consumes each tensor of an ONNX graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from segquant_trt.graph.attributes import attribute, has_default_domain, ints_attribute


class Wiring:
    """Producer and consumer maps of the main graph, built once and never updated.

    `constants` are the initializers and the outputs of Constant nodes; sparse ones have no
    values here, only their shape. `order` is the position of each tensor's producer.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: Sequence[NodeProto] = list(graph.node)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.constants = dict(self.initializers)
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            self.constants[name] = TensorProto(
                name=name, dims=sparse.dims, data_type=sparse.values.data_type
            )
        self.graph_inputs = {
            value.name: value for value in graph.input if value.name not in self.constants
        }
        self.graph_outputs = tuple(value.name for value in graph.output)
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        self.order: dict[str, int] = {}
        for position, node in enumerate(self.nodes):
            for name in node.output:
                self.producer[name] = node
                self.order[name] = position
            for name in read_tensors(node):
                self.consumers[name].append(node)
            if node.op_type == "Constant" and has_default_domain(node):
                self.constants[node.output[0]] = _constant_tensor(node)

    def sole_consumer(self, name: str) -> NodeProto | None:
        """The one node that reads `name`, if there is exactly one and it is no graph output."""
        readers = self.consumers.get(name, [])
        if len(readers) != 1 or name in self.graph_outputs:
            return None
        return readers[0]


def read_tensors(node: NodeProto) -> Iterable[str]:
    """Distinct tensors that `node` reads, also from within its subgraphs."""
    names = dict.fromkeys(name for name in node.input if name)
    for found in node.attribute:
        for graph in subgraphs(found):
            for inner in graph.node:
                names.update(dict.fromkeys(read_tensors(inner)))
            # A branch may answer with a tensor of the outer graph and have no node at all.
            names.update(dict.fromkeys(value.name for value in graph.output))
    return names


def subgraphs(found: onnx.AttributeProto) -> Sequence[onnx.GraphProto]:
    """The graphs that an attribute holds."""
    return [found.g] if found.HasField("g") else list(found.graphs)


def with_inner_nodes(node: NodeProto) -> Iterator[NodeProto]:
    """The node, and all nodes of its subgraphs."""
    yield node
    for found in node.attribute:
        for graph in subgraphs(found):
            for inner in graph.node:
                yield from with_inner_nodes(inner)


def node_name(node: NodeProto) -> str:
    """The node's name, else its first output's name."""
    return node.name or next((name for name in node.output if name), "")


def permutation(node: NodeProto) -> tuple[int, ...] | None:
    """The `perm` of a Transpose, or None for the default (reversal)."""
    return ints_attribute(node, "perm")


def _constant_tensor(node: NodeProto) -> TensorProto:
    name = node.output[0]
    for found in node.attribute:
        match found.name:
            case "value":
                tensor = TensorProto()
                tensor.CopyFrom(found.t)
                tensor.name = name
                return tensor
            case "value_int" | "value_ints" | "value_float" | "value_floats":
                return _number_tensor(name, node)
            case "sparse_value":
                values = found.sparse_tensor
                return TensorProto(name=name, dims=values.dims, data_type=values.values.data_type)
            case _:
                continue
    return TensorProto(name=name, data_type=TensorProto.STRING)


def _number_tensor(name: str, node: NodeProto) -> TensorProto:
    import numpy as np

    for key, dtype in (("int", np.int64), ("float", np.float32)):
        one, many = attribute(node, f"value_{key}"), attribute(node, f"value_{key}s")
        if one is not None:
            return numpy_helper.from_array(np.array(getattr(one, key[0]), dtype=dtype), name)
        if many is not None:
            return numpy_helper.from_array(np.array(getattr(many, f"{key}s"), dtype=dtype), name)
    raise AssertionError("called for a Constant of numbers")
