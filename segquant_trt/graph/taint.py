"""Which graph inputs each tensor's *values* depend on.

Shapes and types are no values: a dependence through `Shape` or `Size` does not count, nor does one
through an operand that only its shape or type matters of (`ConstantOfShape`, `CastLike`). An
operator that nobody knows is opaque: its outputs depend on all of its inputs, which is what every
node does here. Control flow depends on all that its branches read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import NodeProto

from segquant_trt.graph.attributes import has_default_domain
from segquant_trt.graph.shapes.rules import contributed
from segquant_trt.graph.wiring import Wiring, node_name, read_tensors, with_inner_nodes

_SHAPE_ONLY = frozenset({"Shape", "Size", "ConstantOfShape", "EyeLike"})
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
     "Multinomial"}
)  # fmt: skip

Taint = frozenset[str]


def input_dependence(wiring: Wiring) -> dict[str, Taint]:
    """Map every tensor to the names of the graph inputs that its values depend on.

    A random operator counts as an input of its own, called after its node.
    """
    dependence: dict[str, Taint] = {name: frozenset() for name in wiring.constants}
    dependence.update({name: frozenset((name,)) for name in wiring.graph_inputs})
    for node in wiring.nodes:
        parts = [dependence.get(name, frozenset()) for name in value_operands(node)]
        taint: Taint = frozenset().union(*parts, _own_source(node))
        dependence.update({name: taint for name in node.output if name})
    return dependence


def value_operands(node: NodeProto) -> Iterable[str]:
    """Distinct tensors whose values, not only shapes or types, the node's outputs depend on."""
    if ignores_values(node):
        return ()
    if node.op_type == "CastLike" and has_default_domain(node):
        return node.input[:1]
    return read_tensors(node)


def ignores_values(node: NodeProto) -> bool:
    """Whether the node's outputs depend on its operands' shapes alone."""
    return node.op_type in _SHAPE_ONLY and has_default_domain(node)


def reached_from(wiring: Wiring, roots: frozenset[str]) -> frozenset[str]:
    """Tensors that values flow to from any tensor of `roots` (the roots included)."""
    reached = set(roots)
    for node in wiring.nodes:
        if not reached.isdisjoint(value_operands(node)):
            reached.update(node.output)
    return frozenset(reached)


def opaque_operators(model: onnx.ModelProto, wiring: Wiring) -> Counter[str]:
    """How often each operator occurs that is neither ONNX's nor known here."""
    opset = {entry.domain: entry.version for entry in model.opset_import}
    newest = max(opset.get("", 0), opset.get("ai.onnx", 0)) or onnx.defs.onnx_opset_version()
    return Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for outer in wiring.nodes
        for node in with_inner_nodes(outer)
        if not _known(node, newest)
    )


def _known(node: NodeProto, newest: int) -> bool:
    if has_default_domain(node):
        return onnx.defs.has(node.op_type, max_inclusive_version=newest)
    return contributed(node) or onnx.defs.has(node.op_type, domain=node.domain)


def _own_source(node: NodeProto) -> Taint:
    random = any(inner.op_type in _RANDOM for inner in with_inner_nodes(node))
    return frozenset((f"random {node_name(node)}",)) if random else frozenset()
