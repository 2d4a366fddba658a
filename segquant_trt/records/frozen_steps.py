"""What `--freeze-schedule` took out of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

_BFLOAT16_ROUNDING = 2.0**-8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSteps:
    """The timesteps of the tables, and the sites that these replaced.

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
        return min(later - earlier for earlier, later in pairwise(self.timesteps)) / 2.0
