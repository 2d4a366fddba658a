"""Which graph inputs each tensor's *values* depend on.

Shapes are no values: a dependence through `Shape` or `Size` does not count, nor does one through
an operator whose output ignores its operand (`ConstantOfShape`). An operator outside ONNX's own
domains is opaque: its outputs depend on all of its inputs, which is what every node does here.
"""

from __future__ import annotations

from segquant_trt.graph.wiring import Wiring, read_tensors

_SHAPE_ONLY = frozenset({"Shape", "Size", "ConstantOfShape"})

Taint = frozenset[str]


def input_dependence(wiring: Wiring) -> dict[str, Taint]:
    """Map every tensor to the names of the graph inputs that its values depend on."""
    dependence: dict[str, Taint] = {name: frozenset() for name in wiring.initializers}
    dependence.update({name: frozenset((name,)) for name in wiring.graph_inputs})
    for node in wiring.nodes:
        if node.op_type in _SHAPE_ONLY:
            taint: Taint = frozenset()
        else:
            parts = [dependence.get(name, frozenset()) for name in read_tensors(node)]
            taint = frozenset().union(*parts)
        dependence.update({name: taint for name in node.output})
    return dependence


def reached_from(wiring: Wiring, roots: frozenset[str]) -> frozenset[str]:
    """Tensors that values flow to from any tensor of `roots` (the roots included)."""
    reached = set(roots)
    for node in wiring.nodes:
        if node.op_type not in _SHAPE_ONLY and not reached.isdisjoint(read_tensors(node)):
            reached.update(node.output)
    return frozenset(reached)
