"""Timesteps whose features are tables, and how a call's timestep is found among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BFLOAT16_ROUNDING = 2.0**-8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSteps:
    """What `--freeze-schedule` took out of a graph.

    `timesteps` are distinct float32 values of the input `timestep`, ascending: the rows of every
    table. `sites` are no longer in the main graph and did `macs_per_sample`. With `fallback`, a
    second graph that still has them lies beside it for other timesteps.
    """

    schedule: str  # as the user gave it
    timestep: str
    timesteps: tuple[float, ...]
    sites: tuple[str, ...]
    macs_per_sample: int
    fallback: bool

    @property
    def tolerance(self) -> float:
        """Half the smallest gap; of a single step, what rounding it to bfloat16 can move it by."""
        if len(self.timesteps) == 1:
            return abs(self.timesteps[0]) * _BFLOAT16_ROUNDING
        return float(np.diff(np.array(self.timesteps, dtype=np.float64)).min()) / 2.0

    def nearest(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """The frozen timestep closest to each value; NaN goes to the last one."""
        steps = np.array(self.timesteps, dtype=np.float32)
        edges = step_edges(self.timesteps)
        found: npt.NDArray[np.float32] = steps[
            np.searchsorted(edges, np.asarray(values, dtype=np.float32), side="right")
        ]
        return found

    def misses(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """The values, float64[n], that are further from every frozen timestep than `tolerance`."""
        given = np.asarray(values, dtype=np.float64).reshape(-1)
        distance = np.abs(given - self.nearest(given))
        missed: npt.NDArray[np.float64] = given[
            ~((distance < self.tolerance) | (distance == 0.0))  # NaN is a miss
        ]
        return missed


def on_frozen_steps(
    inputs: Mapping[str, npt.NDArray[np.generic]], frozen: FrozenSteps | None
) -> dict[str, npt.NDArray[np.generic]]:
    """A call's inputs with every timestep moved to the nearest frozen one, where any are frozen."""
    moved = dict(inputs)
    if frozen is not None:
        given = moved[frozen.timestep]
        moved[frozen.timestep] = frozen.nearest(given).astype(given.dtype)
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
