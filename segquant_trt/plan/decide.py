"""Decide for every site how it is treated, and say why. Pure: records in, record out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.plan.costs import CostModel
from segquant_trt.plan.presets import RANKED, Preset, Surroundings
from segquant_trt.plan.problem import FLOAT, Choice, Option, Problem, make_problem
from segquant_trt.plan.reasons import Told, considered, left_reason, reason
from segquant_trt.plan.request import PlanRequest
from segquant_trt.plan.solve import Solution, coded, least_noise, least_time, total
from segquant_trt.plan.temporal import off_the_loop, told_of_time
from segquant_trt.records import (
    GraphFacts,
    LinearSite,
    Prediction,
    QuantPlan,
    SitePlan,
    left_in_float,
)
from segquant_trt.records.costs import CostTable
from segquant_trt.records.options import WeightScaleMethod
from segquant_trt.records.scores import Scores, SiteScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """sha256 of the records that a plan is made from."""

    facts: str
    calibration: str
    scores: str


def make_plan(
    facts: GraphFacts,
    scores: Scores,
    table: CostTable,
    request: PlanRequest,
    digests: Digests,
) -> QuantPlan:
    """The plan for one target.

    Raises:
        SegQuantError: facts and scores are of different models, the table is of another target, a
            pattern matches no site, nothing is left to quantise, or what is asked cannot be had.
    """
    scores.check_graph(facts.onnx_sha256)
    absent = off_the_loop(facts, scores, request)
    kept = request.kept(facts) | absent
    if len(kept) == len(facts.sites):
        raise SegQuantError(
            f"all {len(kept)} sites would stay in float or leave the graph: nothing to quantise",
            hint="drop some --keep-float patterns, or --hoist-prompt or --freeze-schedule",
        )
    problem = _problem(facts, scores, table, request, kept, absent)
    plain = _plain(facts, scores, problem, request)
    solution = _solve(facts, scores, problem, plain, request)
    return QuantPlan(
        target=request.target,
        preset=request.preset,
        onnx_sha256=facts.onnx_sha256,
        facts_sha256=digests.facts,
        calibration_sha256=digests.calibration,
        scores_sha256=digests.scores,
        prediction=Prediction(
            sqnr_db_mean=round(solution.sqnr_db_mean, 2),
            latency_ms=float(f"{solution.cost_ms:.4g}"),
            latency_ms_plain=float(f"{plain.cost_ms:.4g}"),
        ),
        sites=told_of_time(
            facts,
            scores,
            request,
            _sites(facts, scores, problem, plain, solution, request, kept),
            absent,
        ),
    )


def _problem(
    facts: GraphFacts,
    scores: Scores,
    table: CostTable,
    request: PlanRequest,
    kept: Mapping[str, str],
    absent: Collection[str],
) -> Problem:
    problem = make_problem(
        facts,
        scores,
        CostModel(table, request.target),
        batch=table.batch,
        scaling=request.scaling,
        kept=kept,
        absent=absent,
        allowed=request.allows,
        admits_float=request.admits_float,
        output_noise=request.output_noise,
        float_share=request.float_share,
        folded=request.folded,
    )
    for choice in problem.choices:
        if not choice.options:
            raise _nothing_left(choice, facts, scores, request)
    return problem


def _nothing_left(
    choice: Choice, facts: GraphFacts, scores: Scores, request: PlanRequest
) -> SegQuantError:
    sites = {site.name: site for site in facts.sites}
    reasons = Counter(
        request.refusal(sites[score.site], score, option)
        for score in scores.sites
        if score.site in choice.sites
        for option in score.options
    )
    told = "; ".join(reason for reason, _ in reasons.most_common() if reason is not None)
    return SegQuantError(
        f"no treatment is left for site '{choice.sites[0]}' on '{request.target}': {told}",
        hint="run 'segquant-trt score --weight-bits ...', change the rules, or keep the "
        "site in float (--keep-float)",
    )


def _plain(facts: GraphFacts, scores: Scores, problem: Problem, request: PlanRequest) -> Solution:
    """Plain static codes everywhere, as far as they are allowed: what plans are measured by."""
    return _ranked(facts, scores, problem, RANKED["plain"], request.weight_scales)


def _solve(
    facts: GraphFacts, scores: Scores, problem: Problem, plain: Solution, request: PlanRequest
) -> Solution:
    if request.preset == "plain":
        return plain
    if request.preset != "auto":
        preset = RANKED[request.preset]
        return _ranked(facts, scores, problem, preset, preset.weight_scales)
    budget = request.budget_ms(plain.cost_ms)
    if request.target_sqnr_db is None:
        return least_noise(problem, budget, plain)
    fastest = least_time(problem, request.target_sqnr_db, plain)
    if limits_latency(request) and fastest.cost_ms > budget:
        raise SegQuantError(
            f"the fastest plan that is expected to reach {request.target_sqnr_db:g} dB takes "
            f"{fastest.cost_ms:.4g} ms, and at most {budget:.4g} are allowed (by the cost table)",
            hint="ask for less with --target-sqnr, or allow more with --max-latency",
        )
    return fastest


def limits_latency(request: PlanRequest) -> bool:
    """Whether a latency was given, beside or without a target of SQNR."""
    return request.max_latency_ms is not None or request.max_latency_ratio is not None


def _ranked(
    facts: GraphFacts,
    scores: Scores,
    problem: Problem,
    preset: Preset,
    weight_scales: WeightScaleMethod,
) -> Solution:
    """Per group, the least noise among the options of the first rank that has any."""
    by_site = {score.site: score for score in scores.sites}
    chosen = []
    for choice in problem.choices:
        scored = by_site[choice.sites[0]].options
        around = _surroundings(facts, choice)
        candidates: list[Option] = []
        for rank in preset.ranks:
            candidates = [
                option for option in coded(choice) if rank(scored[option.index].treatment, around)
            ]
            if candidates:
                break
        candidates = candidates or coded(choice)
        pairs = [(option, scored[option.index]) for option in candidates]
        pool = preset.pool(pairs, weight_scales)
        chosen.append(min(pool, key=lambda option: (float(option.noise.mean()), option.index)))
    return total(problem, chosen)


def _surroundings(facts: GraphFacts, choice: Choice) -> Surroundings:
    name = choice.sites[0]
    sizes = [
        len(entry.sizes)
        for entry in facts.segments
        if entry.site == name and entry.side == "input" and entry.pattern in ("concat", "stack")
    ]
    count = sizes[0] if sizes else 1
    return Surroundings(segments=count, polar=facts.polar_segments(name, count))


def _sites(
    facts: GraphFacts,
    scores: Scores,
    problem: Problem,
    plain: Solution,
    solution: Solution,
    request: PlanRequest,
    kept: Mapping[str, str],
) -> tuple[SitePlan, ...]:
    told: dict[str, Told] = {}
    whole = float(solution.noise.mean())
    for choice, base, option in zip(problem.choices, plain.chosen, solution.chosen, strict=True):
        for site in choice.sites:
            told[site] = Told(choice=choice, plain=base, chosen=option, noise=whole)
    sites = {site.name: site for site in facts.sites}
    return tuple(
        _kept(sites[score.site], score, kept[score.site])
        if score.site in kept
        else _decided(sites[score.site], score, told[score.site], request)
        for score in scores.sites
    )


def _kept(site: LinearSite, score: SiteScore, why: str) -> SitePlan:
    return SitePlan(
        site=site.name,
        module=site.module,
        treatment=left_in_float(site.in_features),
        output_range=None,
        macs_per_sample=_macs(site, score),
        why=why,
        considered=(),
    )


def _decided(site: LinearSite, score: SiteScore, told: Told, request: PlanRequest) -> SitePlan:
    if told.chosen.index == FLOAT:
        return _kept(site, score, left_reason(score, told))
    chosen = score.options[told.chosen.index]
    output_range, output_channels = request.output_codes(site, score, chosen)
    return SitePlan(
        site=site.name,
        module=site.module,
        treatment=chosen.treatment,
        output_range=output_range,
        output_channels=output_channels,
        macs_per_sample=_macs(site, score),
        why=reason(score, told),
        considered=considered(score, told),
    )


def _macs(site: LinearSite, score: SiteScore) -> int:
    taps = int(np.prod(site.kernel, dtype=np.int64))
    return score.rows_per_sample * site.out_features * site.in_features // site.groups * taps
