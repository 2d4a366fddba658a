"""Description of the trials of competing plans."""

from __future__ import annotations

from segquant_trt.records.trials import Trials
from segquant_trt.report.description import Cell, Description, Property, Table, columns


def describe_trials(trials: Trials, name: str) -> Description:
    """What was run, on what, and how each plan did."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            trial.name,
            sum(trial.decibels) / len(trial.decibels) if trial.decibels else None,
            min(trial.decibels, default=None),
            trial.sqnr_db_mean,
            trial.decisions_sha256,
        )
        for trial in trials.trials
    )
    names = ("mean, dB", "worst, dB", "per step, dB")
    return Description(
        kind="trials of plans",
        properties=(
            Property(name="file", value=name),
            Property(name="compared", value=trials.compared),
            Property(name="seeds", value=len(trials.seeds)),
            Property(name="scheduler steps", value=trials.scheduler_steps),
            Property(name="gain of steps, dB", value=trials.step_gain_db, unit="number"),
            Property(name="gain of latents, dB", value=trials.latent_gain_db, unit="number"),
            Property(name="scores sha256", value=trials.scores_sha256),
        ),
        tables=(
            Table(
                title="plans",
                columns=columns("plan", *((n, "number") for n in names), "decisions sha256"),
                rows=rows,
            ),
        ),
    )
