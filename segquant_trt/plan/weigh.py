"""One site of a plan as the planner sees it: every option's noise and cost, and why not others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segquant_trt.plan.costs import CostModel
from segquant_trt.plan.problem import FLOAT, Option, make_problem
from segquant_trt.plan.request import PlanRequest
from segquant_trt.records import GraphFacts, LinearSite, QuantPlan, Treatment
from segquant_trt.records.costs import CostTable
from segquant_trt.records.scores import OptionScore, Scores, SiteScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """One option for a site and those that share its codes.

    `scored` is the site's own; None for leaving all of them in float. `noise` is the mean over
    timestep bins of what the whole group adds to the denoiser's output, `cost_ms` its time.
    `refusal`: why target, bit width or rules do not admit the option.
    """

    scored: OptionScore | None
    noise: float
    cost_ms: float
    refusal: str | None
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """All options of a site, the cheapest first, of equal ones the quietest.

    `sites` are decided together. `noise` is the site's own under the plan, `plan_noise` that of all
    sites; None where a treatment was edited into one that nobody scored (`unscored`).
    """

    sites: tuple[str, ...]
    options: tuple[Weighed, ...]
    noise: float | None
    plan_noise: float | None
    unscored: tuple[str, ...]


def weigh(
    facts: GraphFacts,
    scores: Scores,
    table: CostTable,
    request: PlanRequest,
    plan: QuantPlan,
    name: str,
) -> Weighing:
    """What the plan chose for the site `name`, beside everything else that was scored.

    Args:
        facts: the sites.
        scores: their options.
        table: prices of the plan's target.
        request: what was asked of the plan.
        plan: as made, or as edited.
        name: of one of the sites.

    Raises:
        SegQuantError: the table is of another target.
    """
    sites = {site.name: site for site in facts.sites}
    planned = {entry.site: entry.treatment for entry in plan.sites}
    (own,) = (score for score in scores.sites if score.site == name)
    members = [
        score
        for score in scores.sites
        if score.group == own.group
        and bool(score.options) == bool(own.options)
        and (score.site == name or not planned[score.site].is_float)
    ]
    problem = make_problem(
        facts,
        replace(scores, sites=tuple(members)),
        CostModel(table, plan.target),
        batch=table.batch,
        scaling=request.scaling,
        kept={},
        allowed=lambda *_: True,
        admits_float=lambda _: True,
        output_noise=request.output_noise,
        float_share=1.0,
        folded=request.folded,
    )
    options = [
        _weighed(option, own, members, sites, request, planned[name])
        for option in _distinct(problem.choices[0].options, own)
    ]
    noises = {score.site: _noise(score, planned[score.site], request) for score in scores.sites}
    known = [noise for noise in noises.values() if noise is not None]
    unscored = tuple(site for site, noise in noises.items() if noise is None)
    return Weighing(
        sites=tuple(score.site for score in members),
        options=tuple(sorted(options, key=lambda option: (option.cost_ms, option.noise))),
        noise=noises[name],
        plan_noise=None if unscored else sum(known),
        unscored=unscored,
    )


def _distinct(options: Sequence[Option], own: SiteScore) -> list[Option]:
    """Without those whose fits came to the codes of an earlier one."""
    found: dict[Treatment | None, Option] = {}
    for option in options:
        treatment = None if option.index == FLOAT else own.options[option.index].treatment
        found.setdefault(treatment, option)
    return list(found.values())


def _weighed(
    option: Option,
    own: SiteScore,
    members: Sequence[SiteScore],
    sites: dict[str, LinearSite],
    request: PlanRequest,
    planned: Treatment,
) -> Weighed:
    noise = float(option.noise.mean())
    if option.index == FLOAT:
        admitted = all(request.admits_float(sites[score.site]) for score in members)
        return Weighed(
            scored=None,
            noise=noise,
            cost_ms=option.cost_ms,
            refusal=None if admitted else "a rule wants the site coded",
            chosen=planned.is_float,
        )
    scored = own.options[option.index]
    refusals = (
        request.refusal(sites[score.site], score, score.options[option.index])
        for score in (own, *members)
    )
    return Weighed(
        scored=scored,
        noise=noise,
        cost_ms=option.cost_ms,
        refusal=next((text for text in refusals if text is not None), None),
        chosen=scored.treatment == planned,
    )


def _noise(score: SiteScore, planned: Treatment, request: PlanRequest) -> float | None:
    """What a site adds under the plan, mean over bins; None for a treatment without a score."""
    if planned.is_float:
        return 0.0
    for option in score.options:
        if option.treatment == planned:
            return float(np.mean(np.add(option.noise, request.output_noise(score, option))))
    return None
