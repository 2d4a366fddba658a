"""Operators that compute each element from the elements at its own place."""

from __future__ import annotations

from onnx import NodeProto

from segquant_trt.graph.attributes import has_default_domain
from segquant_trt.graph.view import GraphView

# The same value in another type; Q/DQ pairs count, as they round a value to itself.
CASTS = frozenset(("Cast", "CastLike", "Dropout", "Identity", "QuantizeLinear", "DequantizeLinear"))
UNARY = frozenset(
    ("Abs", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu",
     "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "PRelu", "QuickGelu",
     "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus",
     "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "BiasGelu", "Not", "IsNaN")
)  # fmt: skip
JOINT = frozenset(
    ("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
     "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "SwiGLU", "Where", "Xor")
)  # fmt: skip
_CONTRIBUTED = frozenset(("Gelu", "FastGelu", "QuickGelu", "BiasGelu"))
_MOST_NODES = 24


def is_pointwise(node: NodeProto) -> bool:
    """Whether each output element depends on the operands' elements at its place alone."""
    known = has_default_domain(node) or (
        node.domain == "com.microsoft" and node.op_type in _CONTRIBUTED
    )
    return known and (node.op_type in UNARY or node.op_type in JOINT or node.op_type in CASTS)


def operands(node: NodeProto) -> tuple[str, ...]:
    """The tensors whose elements enter; a cast's second operand is a type or a scale."""
    names = node.input[:1] if node.op_type in CASTS else node.input
    return tuple(dict.fromkeys(name for name in names if name))


def full_operands(node: NodeProto, view: GraphView) -> tuple[str, ...]:
    """The varying operands that are not broadcast; all varying ones where shapes are unknown."""
    varying = [name for name in operands(node) if view.varies(name)]
    target = view.shapes.of(node.output[0])
    return tuple(name for name in varying if not _is_broadcast(name, target, view))


def _is_broadcast(name: str, target: tuple[object, ...] | None, view: GraphView) -> bool:
    shape = view.shapes.of(name)
    if shape is None or target is None:
        return False
    padded = (1,) * (len(target) - len(shape)) + shape
    return any(dim == 1 and wanted != 1 for dim, wanted in zip(padded, target, strict=False))


def common_root(node: NodeProto, view: GraphView) -> tuple[str, tuple[NodeProto, ...]] | None:
    """The one tensor that all full operands of `node` are pointwise functions of.

    `x * sigmoid(x)` has the root `x`. Returns the root and the nodes between it and `node`,
    `node` included; None when the operands come from several tensors.
    """
    frontier = set(full_operands(node, view))
    nodes = [node]
    while len(frontier) > 1:
        latest = max(frontier, key=lambda name: view.wiring.order.get(name, -1))
        maker = view.wiring.producer.get(latest)
        if maker is None or not is_pointwise(maker) or len(nodes) > _MOST_NODES:
            return None
        frontier.remove(latest)
        frontier.update(full_operands(maker, view))
        nodes.append(maker)
    return (frontier.pop(), tuple(nodes)) if frontier else None
