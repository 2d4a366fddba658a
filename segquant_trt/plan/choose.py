"""Choose among plans by what they did when they were run. Pure: records in, record out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segquant_trt.plan.candidates import Candidate, decisions_sha256
from segquant_trt.plan.request import PlanRequest
from segquant_trt.records import Contender, QuantPlan
from segquant_trt.records.trials import Trial, Trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """How much better one plan did than another: mean of paired differences, and its error.

    `stderr_db`: standard error of the mean; None of a single pair.
    """

    mean_db: float
    stderr_db: float | None

    @classmethod
    def between(cls, one: Trial, other: Trial) -> Margin:
        """`one` less `other`, seed by seed."""
        pairs = np.subtract(one.decibels, other.decibels)
        error = float(np.std(pairs, ddof=1) / np.sqrt(len(pairs))) if len(pairs) > 1 else None
        return cls(mean_db=float(np.mean(pairs)), stderr_db=error)

    def __str__(self) -> str:
        error = "" if self.stderr_db is None else f" \N{PLUS-MINUS SIGN} {self.stderr_db:.2f}"
        return f"{self.mean_db:+.2f}{error} dB"


def choose(
    candidates: Sequence[Candidate], trials: Trials | None, request: PlanRequest
) -> QuantPlan:
    """The plan that did best within the limits of `request`.

    The first candidate is the planner's own: it wins ties within the standard error unless it is
    dearer. Without a trial of it, it is chosen by what is expected of it.

    Args:
        candidates: from `make_candidates`.
        trials: of these scores; None where nothing was run.
        request: what the candidates were made for.
    """
    own = candidates[0]
    found = _found(candidates, trials)
    if len(candidates) == 1 or trials is None or own.name not in found:
        return _expecting(own.plan, trials)
    running = [c for c in candidates if c.competes and c.name in found]
    winner, why = (
        _best(running, found)
        if request.target_sqnr_db is None
        else _fastest(running, found, request.target_sqnr_db)
    )
    contenders = tuple(
        _contender(candidate, winner, why, found, trials) for candidate in candidates
    )
    plan = replace(winner.plan, preset=own.plan.preset, chosen_from=contenders)
    return _expecting(plan, trials)


def step_gain_db(references: Sequence[Candidate], trials: Sequence[Trial]) -> float:
    """Measured SQNR per step over what the scores add up to, mean of `references`."""
    return _gain_db(references, {t.decisions_sha256: t.sqnr_db_mean for t in trials})


def latent_gain_db(references: Sequence[Candidate], trials: Sequence[Trial]) -> float:
    """Measured SQNR of final latents over what the scores add up to, mean of `references`."""
    return _gain_db(references, {t.decisions_sha256: float(np.mean(t.decibels)) for t in trials})


def _gain_db(references: Sequence[Candidate], reached_db: Mapping[str, float]) -> float:
    gains = [reached_db[decisions_sha256(c.plan)] - c.expected_db for c in references]
    return round(float(np.mean(gains)), 2)


def _found(candidates: Sequence[Candidate], trials: Trials | None) -> dict[str, Trial]:
    """Trials of the very plans, by the candidates' names."""
    if trials is None:
        return {}
    known = {trial.decisions_sha256: trial for trial in trials.trials}
    tried = ((c.name, known.get(decisions_sha256(c.plan))) for c in candidates)
    return {name: trial for name, trial in tried if trial is not None}


def _best(running: Sequence[Candidate], found: Mapping[str, Trial]) -> tuple[Candidate, str]:
    own = running[0]
    best = max(running, key=lambda c: float(np.mean(found[c.name].decibels)))
    margin = Margin.between(found[best.name], found[own.name])
    tied = margin.stderr_db is not None and margin.mean_db <= margin.stderr_db
    if best is not own and tied and own.cost_ms <= best.cost_ms:
        return own, f"as good as {best.name} within the standard error, and no dearer"
    return best, "did best"


def _fastest(
    running: Sequence[Candidate], found: Mapping[str, Trial], target_db: float
) -> tuple[Candidate, str]:
    reached = {c.name: found[c.name].sqnr_db_mean for c in running}
    reaching = [c for c in running if reached[c.name] >= target_db]
    if reaching:
        fastest = min(reaching, key=lambda c: c.cost_ms)
        return fastest, f"the fastest that reached {target_db:g} dB"
    best = max(running, key=lambda c: reached[c.name])
    return best, f"none reached {target_db:g} dB; it came nearest"


def _contender(
    candidate: Candidate,
    winner: Candidate,
    why: str,
    found: Mapping[str, Trial],
    trials: Trials,
) -> Contender:
    told = Contender(
        name=candidate.name,
        expected_db=candidate.expected_db,
        latency_ms=candidate.cost_ms,
        verdict="",
    )
    trial = found.get(candidate.name)
    excuse = candidate.refused or candidate.pruned
    if trial is None:
        return replace(told, verdict=f"not run: {excuse or 'it could not be'}")
    latents = trials.compared == "final latents"
    measured = replace(
        told,
        measured_db=trial.sqnr_db_mean,
        latent_db=round(float(np.mean(trial.decibels)), 2) if latents else None,
    )
    if candidate is winner:
        return replace(measured, chosen=True, verdict=why)
    margin = Margin.between(trial, found[winner.name])
    error = None if margin.stderr_db is None else round(margin.stderr_db, 2)
    return replace(
        measured,
        margin_db=round(margin.mean_db, 2),
        margin_stderr_db=error,
        verdict=_not_chosen(candidate),
    )


def _not_chosen(candidate: Candidate) -> str:
    if candidate.refused is not None:
        return f"may not be chosen: {candidate.refused}"
    return f"not chosen: {candidate.pruned}" if candidate.pruned else "not chosen"


def _expecting(plan: QuantPlan, trials: Trials | None) -> QuantPlan:
    """With what is expected of it: what it reached when tried, or else its sum and the gains."""
    prediction = plan.prediction
    if trials is None or prediction is None or prediction.sqnr_db_mean is None:
        return plan
    decisions, sums_db = decisions_sha256(plan), prediction.sqnr_db_mean
    own = next((trial for trial in trials.trials if trial.decisions_sha256 == decisions), None)
    steps_db = sums_db + (trials.step_gain_db or 0.0) if own is None else own.sqnr_db_mean
    latent_db = None if trials.latent_gain_db is None else sums_db + trials.latent_gain_db
    if own is not None and trials.compared == "final latents":
        latent_db = float(np.mean(own.decibels))
    expected = replace(
        prediction,
        sqnr_db_mean=round(steps_db, 2),
        latent_sqnr_db=None if latent_db is None else round(latent_db, 2),
    )
    return replace(plan, prediction=expected)
