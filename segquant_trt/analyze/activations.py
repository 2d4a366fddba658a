"""Name the activation that a tensor is the output of, by what it computes.

| the tensor is                                    | named        |
|--------------------------------------------------|--------------|
| x sigmoid(x)                                     | silu         |
| x Phi(x), also x sigmoid(1.702 x)                | gelu         |
| its tanh form                                    | gelu_tanh    |
| x tanh(softplus(x))                              | mish         |
| a times any GELU of b / SiLU of b                | geglu/swiglu |
| any other product of two varying tensors         | gated_other  |
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.pointwise import full_operands
from segquant_trt.graph.pointwise_function import (
    PointwiseFunction,
    Samples,
    gelu,
    gelu_tanh,
    pointwise_functions,
    sigmoid,
)
from segquant_trt.graph.view import GraphView
from segquant_trt.records import PolarActivation

_TOLERANCE = 3e-3  # float16 constants; the two GELUs differ by 5e-4 and the nearest is taken
_LINE = np.linspace(-6.0, 6.0, 49)
_PLANE = (
    np.random.default_rng(0).uniform(-5, 5, 64),
    np.random.default_rng(1).uniform(-5, 5, 64),
)

_ONE: tuple[tuple[PolarActivation, Callable[[Samples], Samples]], ...] = (
    ("silu", lambda x: x * sigmoid(x)),
    ("gelu", gelu),
    ("gelu_tanh", gelu_tanh),
    ("gelu", lambda x: x * sigmoid(1.702 * x)),
    ("mish", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
)
_GATED: dict[PolarActivation, PolarActivation] = {
    "silu": "swiglu",
    "gelu": "geglu",
    "gelu_tanh": "geglu",
}
# Without the constants' values: which function needs which operator.
_SIGNATURES: tuple[tuple[str, PolarActivation], ...] = (
    ("Softplus", "mish"),
    ("Erf", "gelu"),
    ("Tanh", "gelu_tanh"),
    ("Sigmoid", "gelu"),  # with a constant inside: x sigmoid(1.702 x)
)


def activation_of(tensor: str, view: GraphView) -> Match[PolarActivation] | Rejection | None:
    """The activation whose output `tensor` is; None where it is none.

    A rejection is a product of a tensor with a function of itself that has no name here.
    """
    product: Match[PolarActivation] | None = None
    last: PointwiseFunction | None = None
    for function in pointwise_functions(tensor, view):
        last = function
        named = _named(function, view)
        if named is not None:
            return Match(named)
        if len(function.roots) == 2 and product is None and _multiplies(function, view):
            product = Match("gated_other")
    if last is None or len(last.roots) == 2:
        return product
    if product is not None:
        return rejected("the product of a tensor with an unknown function of itself", *last.nodes)
    return None


def _named(function: PointwiseFunction, view: GraphView) -> PolarActivation | None:
    if len(function.roots) == 2:
        return _gated(function, view)
    found = function(view, _LINE)
    if found is None:
        return _by_signature(function) if len(function.nodes) > 1 else None
    errors = [(float(np.max(np.abs(found - known(_LINE)))), name) for name, known in _ONE]
    error, name = min(errors, key=lambda item: item[0])
    return name if error < _TOLERANCE else None


def _gated(function: PointwiseFunction, view: GraphView) -> PolarActivation | None:
    left, right = _PLANE
    found = function(view, left, right)
    if found is None:
        return None
    for name, known in _ONE:
        if name not in _GATED:
            continue
        for gate, value in ((left, right), (right, left)):
            if np.max(np.abs(found - known(gate) * value)) < 5 * _TOLERANCE:
                return _GATED[name]
    return None


def _by_signature(function: PointwiseFunction) -> PolarActivation | None:
    if "Mul" not in function.operators:
        return None
    found = [name for operator, name in _SIGNATURES if operator in function.operators]
    return found[0] if found else None


def _multiplies(function: PointwiseFunction, view: GraphView) -> bool:
    """Whether the last operator is a product of two tensors of the output's own shape."""
    node = function.nodes[0]
    shapes = [view.shapes.of(name) for name in (*node.input, node.output[0])]
    known = all(shape is not None and shape == shapes[-1] for shape in shapes)
    return node.op_type == "Mul" and known and len(full_operands(node, view)) == 2
