"""Who produces and who consumes each tensor of an ONNX graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import onnx
from onnx import NodeProto

_VALUE_PRESERVING = frozenset({"Cast", "Identity", "Transpose"})


class Wiring:
    """Producer and consumer maps of the main graph, built once and never updated."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: Sequence[NodeProto] = list(graph.node)
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.graph_inputs = {
            value.name: value for value in graph.input if value.name not in self.initializers
        }
        self.graph_outputs = tuple(value.name for value in graph.output)
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for name in read_tensors(node):
                self.consumers[name].append(node)

    def constant_origin(self, name: str) -> tuple[str, tuple[NodeProto, ...]] | None:
        """The initializer behind `name`, and the Casts, Transposes and Identities in between.

        The nodes come in data-flow order. None when `name` is computed otherwise.
        """
        path: list[NodeProto] = []
        while name not in self.initializers:
            node = self.producer.get(name)
            if node is None or node.op_type not in _VALUE_PRESERVING:
                return None
            path.append(node)
            name = node.input[0]
        return name, tuple(reversed(path))

    def sole_consumer(self, name: str) -> NodeProto | None:
        """The one node that reads `name`, if there is exactly one and it is no graph output."""
        readers = self.consumers.get(name, [])
        if len(readers) != 1 or name in self.graph_outputs:
            return None
        return readers[0]


def read_tensors(node: NodeProto) -> Iterable[str]:
    """Distinct tensors that `node` reads, also from within its subgraphs."""
    names = dict.fromkeys(name for name in node.input if name)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in graphs:
            for inner in graph.node:
                names.update(dict.fromkeys(read_tensors(inner)))
    return names


def node_name(node: NodeProto) -> str:
    """The node's name, else its first output's name."""
    return node.name or node.output[0]


def permutation(node: NodeProto) -> tuple[int, ...] | None:
    """The `perm` of a Transpose, or None for the default (reversal)."""
    for attribute in node.attribute:
        if attribute.name == "perm":
            return tuple(attribute.ints)
    return None
