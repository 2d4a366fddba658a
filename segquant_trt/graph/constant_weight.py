"""The initializer behind a weight operand, seen through what only rearranges or decodes it.

| between initializer and site         | what the site multiplies by               |
|--------------------------------------|-------------------------------------------|
| Cast, CastLike, Identity             | the same matrix                           |
| QuantizeLinear, DequantizeLinear     | the decoded matrix                        |
| Transpose                            | the matrix, its axes permuted             |
| Reshape, Flatten, Squeeze, Unsqueeze | the matrix, if only axes of length 1 move |

The last row is a 1x1 convolution's weight in a linear, or the reverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import NodeProto

from segquant_trt.graph.attributes import has_default_domain, int_attribute, ints_attribute
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.taint import value_operands
from segquant_trt.graph.wiring import Wiring, permutation

SAME_VALUES = frozenset({"Cast", "CastLike", "Identity"})
_SAME_PLACES = SAME_VALUES | {"QuantizeLinear", "DequantizeLinear"}
_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})

_Axis = tuple[int, int | None]  # length, and which stored axis it is (None: of length 1, or new)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantWeight:
    """A weight operand: its initializer, and how the operand's axes lie in it.

    `axes` gives for each axis of the operand its length and the stored axis that it is; None for
    an axis of length 1 that a reshape has made.
    """

    initializer: str
    stored: tuple[int, ...]
    path: tuple[str, ...]
    axes: tuple[_Axis, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of the operand as the site reads it."""
        return tuple(length for length, _ in self.axes)


def constant_origin(
    name: str, wiring: Wiring, *, through: frozenset[str] = SAME_VALUES
) -> tuple[str, tuple[NodeProto, ...]] | None:
    """The constant behind `name`, and the nodes of `through` in between in data-flow order.

    None when `name` is computed otherwise.
    """
    path: list[NodeProto] = []
    while name not in wiring.constants:
        node = wiring.producer.get(name)
        if node is None or node.op_type not in through or not has_default_domain(node):
            return None
        path.append(node)
        name = node.input[0]
    return name, tuple(reversed(path))


def constant_weight(
    name: str, wiring: Wiring, constants: Constants
) -> Match[ConstantWeight] | Rejection | None:
    """The weight operand `name`; None when it does not come from a constant this way."""
    origin = constant_origin(name, wiring, through=_SAME_PLACES | _RESHAPES | {"Transpose"})
    if origin is None:
        return None
    initializer, path = origin
    stored = tuple(wiring.constants[initializer].dims)
    axes: tuple[_Axis, ...] | None = tuple((length, axis) for axis, length in enumerate(stored))
    for node in path:
        assert axes is not None
        if node.op_type == "Transpose":
            order = permutation(node) or tuple(reversed(range(len(axes))))
            axes = tuple(axes[axis] for axis in order)
        elif node.op_type in _RESHAPES:
            axes = _reshaped(axes, node, constants)
        if axes is None:
            return rejected(f"weight '{initializer}' of shape {stored} is regrouped", node)
    weight = ConstantWeight(
        initializer=initializer,
        stored=stored,
        path=tuple(node.op_type for node in path),
        axes=axes or (),
    )
    return Match(weight)


def constant_expressions(wiring: Wiring) -> frozenset[str]:
    """Tensors that are computed from constants alone."""
    known = set(wiring.constants)
    for node in wiring.nodes:
        reads = list(value_operands(node))
        if reads and known.issuperset(reads):
            known.update(node.output)
    return frozenset(known)


def _reshaped(
    axes: tuple[_Axis, ...], node: NodeProto, constants: Constants
) -> tuple[_Axis, ...] | None:
    """The axes behind a reshape that only adds, drops or moves lengths of 1."""
    dims = _new_dims(tuple(length for length, _ in axes), node, constants)
    lasting = [axis for axis in axes if axis[0] != 1]
    if dims is None or [dim for dim in dims if dim != 1] != [length for length, _ in lasting]:
        return None
    rest = iter(lasting)
    return tuple((1, None) if dim == 1 else next(rest) for dim in dims)


def _new_dims(
    dims: tuple[int, ...], node: NodeProto, constants: Constants
) -> tuple[int, ...] | None:
    if node.op_type == "Flatten":
        axis = int_attribute(node, "axis", 1)
        axis = axis + len(dims) if axis < 0 else axis
        return math.prod(dims[:axis]), math.prod(dims[axis:])
    given = constants.integers(node.input[1]) if len(node.input) > 1 else None
    if node.op_type == "Reshape":
        if given is None:
            return None
        wanted = [dims[i] if dim == 0 and i < len(dims) else dim for i, dim in enumerate(given)]
        rest = math.prod(dims) // max(math.prod(dim for dim in wanted if dim != -1), 1)
        return tuple(rest if dim == -1 else dim for dim in wanted)
    axes = given if given is not None else ints_attribute(node, "axes")
    if node.op_type == "Squeeze":
        dropped = {axis % len(dims) for axis in axes} if axes is not None else None
        return tuple(
            dim for axis, dim in enumerate(dims) if (axis not in dropped if dropped else dim != 1)
        )
    if axes is None:
        return None
    rank = len(dims) + len(axes)
    added, rest_dims = {axis % rank for axis in axes}, iter(dims)
    return tuple(1 if axis in added else next(rest_dims) for axis in range(rank))
