"""Optimisation profiles: which shapes of its inputs an engine is to serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
