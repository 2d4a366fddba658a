"""Temporal components: a table, scales per step, or float; and what a call does not pay for.

Where a schedule is frozen, a table of what depends on the timestep alone has no error and costs
nothing at a call, so nothing competes with it; what a prompt fixes, and is hoisted, costs nothing
at a call either. Without a schedule the planner weighs scales per step, static ones and float by
the noise that they bring to the denoiser's output and by their price, as at every site
(TFMQ-DM calls this disturbance-aware; its rule is not published in code, this one is the
planner's). The reasons carry the error of the temporal feature under each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from segquant_trt.plan.presets import weight_only
from segquant_trt.plan.request import PlanRequest
from segquant_trt.records import GraphFacts, PerStep, SitePlan, Static
from segquant_trt.records.scores import OptionScore, Scores, SiteScore

_TABLE = "; with --freeze-schedule a table would be exact"


def off_the_loop(facts: GraphFacts, scores: Scores, request: PlanRequest) -> dict[str, str]:
    """Sites that no call computes, and why; they stay float.

    `rewrite` takes them out of the graph: what depends on prompt and timestep only where a sample
    has a single row, as modulation has.
    """
    by_site = {score.site: score for score in scores.sites}
    reasons: dict[str, str] = {}
    if request.frozen:
        for entry in facts.timestep_only:
            reasons[entry.site] = (
                "a table over the frozen schedule: exact, and no work at a call; "
                f"{_coded(by_site[entry.site], request)}"
            )
    if request.hoisted:
        reasons |= dict.fromkeys(
            facts.prompt_constant,
            "computed once per prompt, in float: codes would save no time at a call",
        )
    if request.hoisted and request.frozen:
        for name in facts.prompt_and_timestep:
            if by_site[name].rows_per_sample == 1:
                reasons[name] = (
                    "computed once per prompt for the whole frozen schedule, in float: exact, and "
                    f"no work at a call; {_coded(by_site[name], request)}"
                )
    if request.removed is None:
        return reasons
    return {name: reason for name, reason in reasons.items() if name in request.removed}


def told_of_time(
    facts: GraphFacts,
    scores: Scores,
    request: PlanRequest,
    sites: Iterable[SitePlan],
    absent: Collection[str],
) -> tuple[SitePlan, ...]:
    """The plans of sites; temporal ones that calls compute also tell what else there was.

    Args:
        facts: which sites are temporal.
        scores: their options.
        request: which of them count.
        sites: as planned.
        absent: from `off_the_loop`: their reasons tell it already.
    """
    alone = {entry.site for entry in facts.timestep_only}
    temporal = (alone | {*facts.prompt_and_timestep}) - {*absent}
    by_site = {score.site: score for score in scores.sites}

    def told(site: SitePlan) -> SitePlan:
        if site.site not in temporal:
            return site
        table = "" if request.frozen or site.site not in alone else _TABLE
        return replace(
            site, why=f"{site.why}; temporal: {_coded(by_site[site.site], request)}{table}"
        )

    return tuple(told(site) for site in sites)


def _coded(score: SiteScore, request: PlanRequest) -> str:
    found = [
        f"{best:.1f} dB with {name}"
        for name, best in (
            ("static scales", _best(score, request, per_step=False)),
            ("scales per step", _best(score, request, per_step=True)),
        )
        if best is not None
    ]
    return f"coded, its output reaches {' and '.join(found)}" if found else "it was not scored"


def _best(score: SiteScore, request: PlanRequest, *, per_step: bool) -> float | None:
    """The least error of the temporal feature, as SQNR in dB over calibration rows."""
    decibels = [
        option.sqnr_db
        for option in score.options
        if option.sqnr_db is not None
        and _asked_for(option, request)
        and _follows_steps(option) is per_step
    ]
    return max(decibels, default=None)


def _asked_for(option: OptionScore, request: PlanRequest) -> bool:
    weight = option.treatment.weight
    kind = weight_only(option.treatment) == request.weight_only
    return kind and weight is not None and weight.bits == request.weight_bits


def _follows_steps(option: OptionScore) -> bool | None:
    """None of factors that follow something else."""
    factors = [segment.factor for segment in option.treatment.segments]
    if not all(isinstance(factor, (Static, PerStep)) for factor in factors):
        return None
    return any(isinstance(factor, PerStep) for factor in factors)
