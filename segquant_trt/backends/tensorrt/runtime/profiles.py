"""Which optimisation profile serves the shapes of a call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import ShapeProfile, ShapeRange, shape_text

Shapes = Mapping[str, tuple[int, ...]]


def choose_profile(profiles: Sequence[ShapeProfile], shapes: Shapes) -> int:
    """The profile that admits all shapes and was tuned nearest to them.

    Raises:
        SegQuantError: none does; naming the input at fault, and what every profile allows of it.
    """
    fitting = [index for index, profile in enumerate(profiles) if _admits(profile, shapes)]
    if not fitting:
        raise _outside(profiles, shapes)
    return min(fitting, key=lambda index: (_distance(profiles[index], shapes), index))


def _admits(profile: ShapeProfile, shapes: Shapes) -> bool:
    return all(
        bounds.name in shapes and bounds.admits(shapes[bounds.name]) for bounds in profile.inputs
    )


def _distance(profile: ShapeProfile, shapes: Shapes) -> float:
    """Sum of log-ratios to the optimum: twice as long is as far as half as long."""
    return sum(
        abs(math.log(max(length, 1) / max(usual, 1)))
        for bounds in profile.inputs
        for length, usual in zip(shapes[bounds.name], bounds.optimum, strict=True)
    )


def _outside(profiles: Sequence[ShapeProfile], shapes: Shapes) -> SegQuantError:
    name = _culprit(profiles, shapes)
    if name is None:
        return SegQuantError(
            "each input is within some profile's range, but no profile has them all: "
            + "; ".join(f"profile {index}: {_all(each)}" for index, each in enumerate(profiles)),
            hint="call with shapes of one profile, or build one with --profile=N for these",
        )
    allowed = " or ".join(dict.fromkeys(_range(profile.of(name)) for profile in profiles))
    return SegQuantError(
        f"input '{name}' has shape {shape_text(shapes[name])}; this engine allows {allowed}",
        hint="call with such a shape, or build the engine again with other shapes",
    )


def _culprit(profiles: Sequence[ShapeProfile], shapes: Shapes) -> str | None:
    """An input that no profile admits, however the others are."""
    for name, shape in shapes.items():
        ranges = [profile.of(name) for profile in profiles]
        if all(each is not None and not each.admits(shape) for each in ranges):
            return name
    return None


def _range(bounds: ShapeRange | None) -> str:
    if bounds is None:
        return "any shape"
    if bounds.minimum == bounds.maximum:
        return shape_text(bounds.minimum)
    return f"{shape_text(bounds.minimum)} to {shape_text(bounds.maximum)}"


def _all(profile: ShapeProfile) -> str:
    return ", ".join(f"{each.name} {_range(each)}" for each in profile.inputs)
