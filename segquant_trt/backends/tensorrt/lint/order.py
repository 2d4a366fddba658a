"""Nodes in an order in which each reads only what is there; files need not be in one."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import NodeProto

from segquant_trt.graph.wiring import read_tensors


def sorted_nodes(graph: onnx.GraphProto) -> tuple[Sequence[NodeProto], Sequence[NodeProto]]:
    """The nodes in order, and those that no order serves: they wait for each other."""
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    nodes = list(graph.node)
    waits = [{makers[name] for name in read_tensors(node) if name in makers} for node in graph.node]
    readers: dict[int, list[int]] = {}
    for place, needed in enumerate(waits):
        for maker in needed:
            readers.setdefault(maker, []).append(place)
    ready = [place for place, needed in enumerate(waits) if not needed]
    done: list[int] = []
    for place in ready:
        done.append(place)
        for reader in readers.get(place, ()):
            waits[reader].discard(place)
            if not waits[reader]:
                ready.append(reader)
    left = [nodes[place] for place, needed in enumerate(waits) if needed]
    return [nodes[place] for place in done], left


def is_sorted(graph: onnx.GraphProto) -> bool:
    """Whether every node stands behind those that it reads from."""
    later = {name for node in graph.node for name in node.output if name}
    for node in graph.node:
        if not later.isdisjoint(read_tensors(node)):
            return False
        later.difference_update(node.output)
    return True
