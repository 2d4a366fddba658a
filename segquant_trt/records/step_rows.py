"""Which row of the tables a call's timestep belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from segquant_trt.records.frozen_steps import FrozenSteps

_FLOAT32_UNITS = 4.0 * 2.0**-23
_ONE_ROUNDING = 0.5  # units in the last place
_TWO_ROUNDINGS = 1.02  # dividing by 1000 and not 1024 makes the first one a little larger


def step_indices(
    timesteps: tuple[float, ...], values: npt.NDArray[np.generic]
) -> npt.NDArray[np.int64]:
    """The row of the frozen timestep closest to each value; NaN goes to the last one."""
    given = np.asarray(values, dtype=np.float32)
    return np.asarray(np.searchsorted(step_edges(timesteps), given, side="right"), dtype=np.int64)


def nearest_steps(frozen: FrozenSteps, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """The frozen timestep closest to each value; NaN goes to the last one."""
    steps = np.array(frozen.timesteps, dtype=np.float32)
    found: npt.NDArray[np.float32] = steps[step_indices(frozen.timesteps, values)]
    return found


def missed_steps(frozen: FrozenSteps, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The values, float64[n], that are no frozen timestep, not even a rounded one.

    A value may be as far from a step as `rounding_of` says, but never half the smallest gap.
    """
    given = np.asarray(values, dtype=np.float64).reshape(-1)
    distance = np.abs(given - nearest_steps(frozen, given))
    near = (distance <= rounding_of(frozen, values)) & (distance < frozen.half_gap)
    missed: npt.NDArray[np.float64] = given[~(near | (distance == 0.0))]  # with NaN: it is no hit
    return missed


def rounding_of(frozen: FrozenSteps, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """How far rounding alone can have moved each value, float64[n], from its nearest step.

    Pipelines hand over timesteps in the latents' type, which a drop-in widens to float32: a value
    that bfloat16 or float16 represents may have been rounded to it, and where steps are fractions
    of 1000 rounded again after the division. Others may be a few units of float32 off. Integers
    are exact.
    """
    if np.issubdtype(np.asarray(values).dtype, np.integer):
        return np.zeros(np.size(values))
    given = np.asarray(values, dtype=np.float32).reshape(-1)
    steps = np.abs(nearest_steps(frozen, given).astype(np.float64))
    _, exponent = np.frexp(steps)
    leading = np.where(steps == 0.0, 0.0, np.ldexp(1.0, exponent - 1))  # the step's power of two
    brain = given.view(np.uint32) & np.uint32(0xFFFF) == 0
    with np.errstate(over="ignore"):
        half = given.astype(np.float16) == given
    rounded = _ONE_ROUNDING if max(map(abs, frozen.timesteps)) > 1.0 else _TWO_ROUNDINGS
    units = np.select([brain, half], [rounded * 2.0**-7, rounded * 2.0**-10], _FLOAT32_UNITS)
    return np.asarray(leading * units, dtype=np.float64)


def on_frozen_steps(
    inputs: Mapping[str, npt.NDArray[np.generic]], frozen: FrozenSteps | None
) -> dict[str, npt.NDArray[np.generic]]:
    """A call's inputs with every timestep moved to the nearest frozen one, where any are frozen."""
    moved = dict(inputs)
    if frozen is not None:
        given = moved[frozen.timestep]
        moved[frozen.timestep] = nearest_steps(frozen, given).astype(given.dtype)
    return moved


def table_steps(timesteps: Iterable[float]) -> tuple[float, ...]:
    """Distinct float32 values, ascending."""
    return tuple(sorted({float(np.float32(value)) for value in timesteps}))


def step_edges(timesteps: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """float32[T - 1]: from edge i on, a timestep belongs to step i + 1."""
    steps = np.array(timesteps, dtype=np.float64)
    edges = ((steps[:-1] + steps[1:]) / 2.0).astype(np.float32)
    # Between neighbours in float32 the midpoint may round down to the lower one.
    upper = steps[1:].astype(np.float32)
    found: npt.NDArray[np.float32] = np.where(edges <= steps[:-1], upper, edges)
    return found
