"""What `--freeze-schedule` took out of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


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
    def half_gap(self) -> float:
        """Half the smallest gap: nothing this far from a step is taken for it."""
        gaps = (later - earlier for earlier, later in pairwise(self.timesteps))
        return min(gaps, default=float("inf")) / 2.0
