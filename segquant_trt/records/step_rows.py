"""Which row of the tables a call's timestep belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from segquant_trt.records.frozen_steps import FrozenSteps


def nearest_steps(frozen: FrozenSteps, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """The frozen timestep closest to each value; NaN goes to the last one."""
    steps = np.array(frozen.timesteps, dtype=np.float32)
    given = np.asarray(values, dtype=np.float32)
    found: npt.NDArray[np.float32] = steps[
        np.searchsorted(step_edges(frozen.timesteps), given, side="right")
    ]
    return found


def missed_steps(frozen: FrozenSteps, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The values, float64[n], that are further from every frozen timestep than the tolerance."""
    given = np.asarray(values, dtype=np.float64).reshape(-1)
    distance = np.abs(given - nearest_steps(frozen, given))
    hit = (distance < frozen.tolerance) | (distance == 0.0)
    missed: npt.NDArray[np.float64] = given[~hit]  # with NaN, which is no hit
    return missed


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
