"""What is known of each tensor while, and after, shapes are inferred."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from segquant_trt.graph.attributes import int_attribute, ints_attribute
from segquant_trt.graph.constants import Constants
from segquant_trt.graph.dims import Dim, Expr, symbol

Shape: TypeAlias = tuple[Dim, ...]
Value: TypeAlias = npt.NDArray[Any]  # of objects: int, float, bool or Expr

_MOST_ELEMENTS = 256


class Shapes:
    """Shapes by tensor, and the values of small shape-like tensors.

    A value is a NumPy array of objects: integers, floats, booleans and symbolic lengths.
    """

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._shapes: dict[str, Shape] = {}
        self._values: dict[str, Value | None] = {}
        self.sequences: dict[str, tuple[Shape | None, ...]] = {}

    def of(self, name: str) -> Shape | None:
        """The shape of a tensor; None when not even its rank is known."""
        return self._shapes.get(name)

    def rank(self, name: str) -> int | None:
        """The rank of a tensor, or None."""
        shape = self._shapes.get(name)
        return None if shape is None else len(shape)

    def value(self, name: str) -> Value | None:
        """The value of a small tensor, as far as it follows from constants and shapes."""
        if name not in self._values:
            array = self._constants.array(name)
            small = array is not None and array.size <= _MOST_ELEMENTS
            self._values[name] = array.astype(object) if array is not None and small else None
        return self._values[name]

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A small tensor as a flat tuple, when every element is a known integer."""
        value = self.value(name)
        if value is None:
            return None
        flat = [whole(item) for item in value.reshape(-1)]
        known = tuple(item for item in flat if item is not None)
        return known if len(known) == len(flat) else None

    def lengths(self, name: str) -> tuple[Dim, ...] | None:
        """A small tensor as a flat tuple of lengths."""
        value = self.value(name)
        if value is None:
            return None
        flat = [item if isinstance(item, Expr) else whole(item) for item in value.reshape(-1)]
        known = tuple(item for item in flat if item is not None)
        return known if len(known) == len(flat) else None

    def axes_of(self, node: NodeProto, position: int, name: str = "axes") -> tuple[int, ...] | None:
        """An integer list that is an attribute in old opsets and an input in newer ones.

        None when it is absent or unknown; `has_input` tells these apart.
        """
        if has_input(node, position):
            return self.integers(node.input[position])
        return ints_attribute(node, name)

    def set_shape(self, name: str, shape: Shape | None) -> None:
        """Record a shape, once."""
        if name and shape is not None:
            self._shapes[name] = shape

    def set_value(self, name: str, value: Value) -> None:
        """Record a value, unless it is large."""
        self._values[name] = value if value.size <= _MOST_ELEMENTS else None


def has_input(node: NodeProto, position: int) -> bool:
    """Whether an optional input is given."""
    return len(node.input) > position and bool(node.input[position])


def whole(item: Any) -> int | None:
    """The element as an integer, when it is one."""
    if isinstance(item, (bool, np.bool_)):
        return int(item)
    if isinstance(item, (int, np.integer)):
        return int(item)
    if isinstance(item, (float, np.floating)) and float(item).is_integer():
        return int(item)
    return None


def unknown(node: NodeProto, axis: int | str, output: int = 0) -> Expr:
    """A length that nothing else is known to equal."""
    return symbol(f"?{node.output[output]}.{axis}")


def axis_attribute(node: NodeProto, rank: int, default: int = 0, name: str = "axis") -> int:
    """The `axis` attribute, counted from the front."""
    return int_attribute(node, name, default) % max(rank, 1)
