"""Optimisation profiles: which shapes of its inputs an engine is to serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from segquant_trt.errors import SegQuantError


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRange:
    """The least, the most usual and the largest shape of one input."""

    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raises: SegQuantError: the three are not in order."""
        shapes = (self.minimum, self.optimum, self.maximum)
        in_order = len({len(shape) for shape in shapes}) == 1 and all(
            1 <= low <= usual <= high for low, usual, high in zip(*shapes, strict=True)
        )
        if not in_order:
            raise SegQuantError(
                f"{list(self.minimum)} to {list(self.maximum)} with optimum {list(self.optimum)} "
                "is no range of shapes: each axis needs 1 <= minimum <= optimum <= maximum",
                hint="give the three shapes in this order, with the same number of axes",
            )

    @staticmethod
    def fixed(*shape: int) -> ShapeRange:
        """One shape only: then the builder's report has every dimension as a number."""
        return ShapeRange(minimum=shape, optimum=shape, maximum=shape)


Profile = Mapping[str, ShapeRange]
"""By input; inputs whose shape the graph fixes may be left out."""


def check_profiles(profiles: Sequence[Profile], graph: onnx.GraphProto) -> None:
    """Refuse profiles that do not fit the graph's inputs.

    Raises:
        SegQuantError: an input of unknown shape without a range, a range for no input, or one that
            contradicts the graph.
    """
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: _lengths(value) for value in graph.input if value.name not in stored}
    for profile in profiles or ({},):
        for name, lengths in inputs.items():
            if name not in profile and None in lengths:
                raise SegQuantError(
                    f"input '{name}' has axes of unknown length, and no profile gives its shape",
                    hint="give its minimum, optimum and maximum shape in every profile",
                )
        for name, shapes in profile.items():
            if name not in inputs:
                raise SegQuantError(
                    f"a profile speaks of '{name}', which is no input of the graph",
                    hint=f"the inputs are {', '.join(inputs) or 'none'}",
                )
            _check_range(name, shapes, inputs[name])


def _check_range(name: str, shapes: ShapeRange, lengths: Sequence[int | None]) -> None:
    fits = len(shapes.minimum) == len(lengths) and all(
        length is None or low == length == high
        for low, high, length in zip(shapes.minimum, shapes.maximum, lengths, strict=True)
    )
    if not fits:
        known = ", ".join("any" if length is None else str(length) for length in lengths)
        raise SegQuantError(
            f"the profile's shapes of input '{name}', {list(shapes.minimum)} to "
            f"{list(shapes.maximum)}, do not fit the graph's [{known}]",
            hint="keep what the graph fixes, and give as many axes",
        )


def _lengths(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    axes = value.type.tensor_type.shape.dim
    return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)
