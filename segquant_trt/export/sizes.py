"""Lengths of the dynamic axes at which a model is traced and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from segquant_trt.records import AxisRange

TRACED: Mapping[str, int] = {"batch": 2, "height": 12, "width": 10, "tokens": 35, "text": 11}
# Other than the traced ones in every axis: a baked-in length cannot pass.
CHECKED: tuple[Mapping[str, int], ...] = (
    {"batch": 1, "height": 3, "width": 5, "tokens": 15, "text": 7},
    {"batch": 3, "height": 6, "width": 2, "tokens": 24, "text": 9},
)


def lengths_of(axes: Iterable[AxisRange], units: Mapping[str, int]) -> dict[str, int]:
    """`units` times each axis' multiple, brought into the axis' range."""
    return {
        axis.name: min(max(units[axis.name] * axis.multiple, axis.minimum), axis.maximum)
        for axis in axes
    }


def describe(lengths: Mapping[str, int]) -> str:
    """`batch=1 height=6 ...`, in axis order."""
    return " ".join(f"{name}={length}" for name, length in lengths.items())
