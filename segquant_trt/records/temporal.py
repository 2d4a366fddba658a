"""How exact the temporal features are: what a denoiser derives from the timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Held = Literal["table", "once per prompt", "coded", "float"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalStep:
    """Error of a feature at one timestep, mean over samples.

    `relative_error` is the error's norm over the feature's, `sqnr_db` that in decibels, and None
    where there is no error at all.
    """

    timestep: float
    sqnr_db: float | None
    relative_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TemporalFeature:
    """One component: what the last site before the rest of the network gives it.

    `depends_on` prompt inputs too, or the timestep alone. `held`: how the bundle computes that
    site; one in float may still read coded ones. Without an error at any step `steps` is empty and
    the decibels are None.
    """

    site: str
    module: str | None
    depends_on: Literal["timestep", "prompt and timestep"]
    held: Held
    sqnr_db_mean: float | None
    sqnr_db_worst: float | None
    relative_error_mean: float
    relative_error_worst: float
    steps: tuple[TemporalStep, ...]
