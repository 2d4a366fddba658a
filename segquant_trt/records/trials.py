"""`trials.yaml`: plans that were run before one of them was chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Compared = Literal["final latents", "recorded samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One plan at work, decibels against the float model and rounded to hundredths.

    `decisions_sha256` names the plan by what it does (`plan.decisions_sha256`). `sqnr_db_mean` is
    teacher-forced, as `verify` defines it. `decibels` are what plans are compared by, one figure
    per seed or sample, in the same order for all plans.
    """

    name: str
    decisions_sha256: str
    sqnr_db_mean: float
    decibels: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """All plans that were run.

    With a denoising loop, `compared` are final latents of `seeds`, every plan on its own
    trajectories: calibration's prompts, but noise that neither calibration nor verification sees,
    since ranges and optimised weights fit the recorded trajectories a decibel better than others.
    Without a loop, they are samples of the calibration's inputs. `step_gain_db` and
    `latent_gain_db` are how far the measured SQNR per step, and that of final latents, lie above
    the SQNR per step that the scores add up to, on the plans that `plan.make_references` names:
    what makes of these sums what is expected of a plan that was not run. None without trials, or
    without latents.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    onnx_sha256: str
    scores_sha256: str
    compared: Compared
    seeds: tuple[int, ...]
    scheduler_steps: int | None
    step_gain_db: float | None
    latent_gain_db: float | None
    trials: tuple[Trial, ...]
