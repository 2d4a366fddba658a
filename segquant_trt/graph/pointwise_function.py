"""A pointwise part of the graph as a function of one or two tensors, evaluated on samples.

Exporters write the same activation in many ways; all of them are the same function. So instead
of matching forms, the nodes between a tensor and its one or two roots are evaluated in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from segquant_trt.graph.attributes import float_attribute, text_attribute
from segquant_trt.graph.pointwise import CASTS, full_operands, is_pointwise, operands
from segquant_trt.graph.shapes.knowledge import has_input
from segquant_trt.graph.view import GraphView

Samples = npt.NDArray[np.float64]

_MOST_NODES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseFunction:
    """The values of a tensor in terms of `roots`; `nodes` from the tensor back to them."""

    tensor: str
    roots: tuple[str, ...]
    nodes: tuple[NodeProto, ...]

    def __call__(self, view: GraphView, *samples: Samples) -> Samples | None:
        """Evaluate on one array per root; None where an operator or constant is unknown."""
        known: dict[str, Any] = dict(zip(self.roots, samples, strict=True))
        with np.errstate(all="ignore"):
            for node in reversed(self.nodes):
                if node.output[0] in known:
                    continue
                result = _evaluated(node, known, view)
                if result is None:
                    return None
                known[node.output[0]] = result
        return np.broadcast_to(np.asarray(known[self.tensor], dtype=np.float64), samples[0].shape)

    @property
    def operators(self) -> frozenset[str]:
        """Types of the nodes."""
        return frozenset(node.op_type for node in self.nodes)


def pointwise_functions(tensor: str, view: GraphView) -> Iterator[PointwiseFunction]:
    """`tensor` as a function of one or two roots, ever further upstream.

    Only nodes whose other operands are constant numbers are crossed.
    """
    frontier, nodes = {tensor}, list[NodeProto]()
    while len(nodes) < _MOST_NODES:
        latest = _latest(frontier, view)
        if latest is None:
            return
        maker = view.wiring.producer[latest]
        frontier.remove(latest)
        frontier.update(full_operands(maker, view))
        nodes.append(maker)
        if 1 <= len(frontier) <= 2:
            order = sorted(nodes, key=lambda node: -view.wiring.order[node.output[0]])
            yield PointwiseFunction(
                tensor=tensor, roots=tuple(sorted(frontier)), nodes=tuple(order)
            )


def _latest(frontier: set[str], view: GraphView) -> str | None:
    """The tensor of the frontier that is made last, among those that can be crossed."""
    order = view.wiring.order
    crossable = [
        name
        for name in frontier
        if (node := view.wiring.producer.get(name)) is not None and _crossable(node, name, view)
    ]
    return max(crossable, key=lambda name: order[name], default=None)


def _crossable(node: NodeProto, name: str, view: GraphView) -> bool:
    if not is_pointwise(node) or name != node.output[0]:
        return False
    full = full_operands(node, view)
    rest = [operand for operand in operands(node) if operand not in full]
    return bool(full) and all(_is_number(operand, view) for operand in rest)


def _is_number(name: str, view: GraphView) -> bool:
    if view.varies(name):
        return False
    shape = view.shapes.of(name)
    return shape is not None and all(dim == 1 for dim in shape)


def number(name: str, view: GraphView) -> float | None:
    """The value of a constant with one element, seen through casts and shape changes."""
    for _ in range(_MOST_NODES):
        array = view.constants.array(name)
        if array is None:
            value = view.shapes.value(name)
            array = None if value is None else value.reshape(-1)
        if array is not None:
            return _as_float(array)
        maker = view.wiring.producer.get(name)
        through = ("Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Expand")
        if maker is None or maker.op_type not in through:
            return None
        name = maker.input[0]
    return None


def _as_float(array: npt.NDArray[Any]) -> float | None:
    if array.size != 1:
        return None
    try:
        return float(array.reshape(-1)[0])
    except (TypeError, ValueError):
        return None  # a symbolic length, or a text


def _evaluated(node: NodeProto, known: Mapping[str, Any], view: GraphView) -> Any:
    function = _FUNCTIONS.get(node.op_type)
    if node.op_type in CASTS:
        return known.get(node.input[0])
    if function is None:
        return None
    values: list[Any] = []
    for name in node.input:
        value = known.get(name) if name in known else number(name, view) if name else None
        if value is None and name:
            return None
        values.append(value)
    return function(node, *values)


def erf(values: Samples) -> Samples:
    """The error function, elementwise."""
    result: Samples = np.vectorize(math.erf, otypes=[np.float64])(values)
    return result


def sigmoid(values: Samples) -> Samples:
    """1 / (1 + exp(-x))."""
    return np.asarray(1 / (1 + np.exp(-values)))


def gelu(values: Samples) -> Samples:
    """x Phi(x)."""
    return np.asarray(values * 0.5 * (1 + erf(values / math.sqrt(2))))


def gelu_tanh(values: Samples) -> Samples:
    """GELU's approximation by a hyperbolic tangent."""
    inner = math.sqrt(2 / math.pi) * (values + 0.044715 * values**3)
    return np.asarray(0.5 * values * (1 + np.tanh(inner)))


def _gelu(node: NodeProto, values: Samples) -> Samples:
    approximate = text_attribute(node, "approximate", "none") == "tanh"
    return gelu_tanh(values) if approximate else gelu(values)


def _swish(node: NodeProto, values: Samples) -> Samples:
    return values * sigmoid(float_attribute(node, "alpha", 1.0) * values)


def _quick_gelu(node: NodeProto, values: Samples) -> Samples:
    return values * sigmoid(float_attribute(node, "alpha", 1.702) * values)


def _clip(node: NodeProto, values: Samples, *bounds: Any) -> Samples:
    low, high = (*bounds, None, None)[:2]
    if not has_input(node, 1):
        low = float_attribute(node, "min", -math.inf)
    if not has_input(node, 2):
        high = float_attribute(node, "max", math.inf)
    return np.clip(values, low, high)


def _hard_sigmoid(node: NodeProto, values: Samples) -> Samples:
    slope, shift = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return np.clip(slope * values + shift, 0, 1)


def _elu(node: NodeProto, values: Samples) -> Samples:
    return np.where(values > 0, values, float_attribute(node, "alpha", 1.0) * np.expm1(values))


def _leaky(node: NodeProto, values: Samples) -> Samples:
    return np.where(values > 0, values, float_attribute(node, "alpha", 0.01) * values)


def _biased_gelu(node: NodeProto, values: Samples, bias: Any = None) -> Samples:
    shifted = values if bias is None else values + bias
    return gelu_tanh(shifted) if node.op_type == "FastGelu" else gelu(shifted)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, *values: function(*values)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "BiasGelu": _biased_gelu,
    "Clip": _clip,
    "Div": _plain(np.divide),
    "Elu": _elu,
    "Erf": _plain(erf),
    "Exp": _plain(np.exp),
    "FastGelu": _biased_gelu,
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "LeakyRelu": _leaky,
    "Log": _plain(np.log),
    "Max": _plain(lambda *values: np.max(np.broadcast_arrays(*values), axis=0)),
    "Min": _plain(lambda *values: np.min(np.broadcast_arrays(*values), axis=0)),
    "Mish": _plain(lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Pow": _plain(np.power),
    "QuickGelu": _quick_gelu,
    "Reciprocal": _plain(np.reciprocal),
    "Relu": _plain(lambda x: np.maximum(x, 0)),
    "Sigmoid": _plain(sigmoid),
    "Softplus": _plain(lambda x: np.log1p(np.exp(x))),
    "Softsign": _plain(lambda x: x / (1 + np.abs(x))),
    "Sqrt": _plain(np.sqrt),
    "Sub": _plain(np.subtract),
    "Sum": _plain(lambda *values: sum(values)),
    "SwiGLU": lambda node, gate, value: _swish(node, gate) * value,
    "Swish": _swish,
    "Tanh": _plain(np.tanh),
    "Where": _plain(np.where),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
}
