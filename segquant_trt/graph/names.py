"""Fresh names in a graph."""

from __future__ import annotations

import onnx


class FreshNames:
    """Hands out tensor and node names that the graph does not use yet; deterministic."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = {tensor.name for tensor in graph.initializer}
        self._taken |= {value.name for value in (*graph.input, *graph.output)}
        for node in graph.node:
            self._taken |= {node.name, *node.input, *node.output}

    def fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted_2`, `wanted_3`... when it is taken."""
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
