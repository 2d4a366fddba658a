"""The plans that compete for being chosen: the planner's own, and what published methods do. Pure.

Expectations are good to a few decibels, so `auto` runs its own plan beside the presets' that keep
to the same limits, and takes the best. Those that cannot win by any likely error are not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from segquant_trt.errors import SegQuantError
from segquant_trt.plan.decide import Digests, limits_latency, make_plan
from segquant_trt.plan.request import BUDGETS, PlanRequest
from segquant_trt.records import GraphFacts, QuantPlan
from segquant_trt.records.codec import to_plain
from segquant_trt.records.costs import CostTable
from segquant_trt.records.files import digest_of
from segquant_trt.records.options import PRESETS, PresetName
from segquant_trt.records.scores import OptionScore, Scores

REFERENCES: tuple[PresetName, ...] = ("plain", "segquant", "auto")
"""From the most to the least error of activations. Errors of weights add up over the steps, those
of activations hardly: plain codes alone promise other plans too much at the end, and treated
activations too little."""

_PUBLISHED = tuple(name for name in PRESETS if name != "auto")
_SPARING = "auto in less time"
_ROUNDED = 1e-3  # of predicted latencies
_EXPECTED_WITHIN_DB = {8: 2.0, 4: 4.0}
_HIGHER_TARGETS_DB = (1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan under a name; `refused` says why it may not be chosen, `pruned` why it is not run."""

    name: str
    plan: QuantPlan
    refused: str | None = None
    pruned: str | None = None

    @property
    def expected_db(self) -> float:
        """SQNR per step that is expected of it."""
        assert self.plan.prediction is not None
        assert self.plan.prediction.sqnr_db_mean is not None
        return self.plan.prediction.sqnr_db_mean

    @property
    def cost_ms(self) -> float:
        """Its sites' time by the cost table."""
        assert self.plan.prediction is not None
        assert self.plan.prediction.latency_ms is not None
        return self.plan.prediction.latency_ms

    @property
    def competes(self) -> bool:
        """Whether it may be chosen, if it does well."""
        return self.refused is None and self.pruned is None


def decisions_sha256(plan: QuantPlan) -> str:
    """The digest of all that a plan does, whatever its reasons and expectations."""
    done = [
        [site.site, to_plain(site.treatment), site.output_range, site.output_channels]
        for site in plan.sites
    ]
    return digest_of([plan.target, plan.onnx_sha256, done])


def make_candidates(
    facts: GraphFacts, scores: Scores, table: CostTable, request: PlanRequest, digests: Digests
) -> tuple[Candidate, ...]:
    """The plan that `request` asks for, and those that compete with it: none but for `auto`.

    Raises:
        SegQuantError: the first one cannot be made; see `make_plan`.
    """
    own = Candidate(name=request.preset, plan=make_plan(facts, scores, table, request, digests))
    if request.preset != "auto":
        return (own,)
    found = [own, *_variants(facts, scores, table, request, digests)]
    for name in _PUBLISHED:
        # Presets take no limits: what they make is held against those of the request.
        plan = make_plan(facts, scores, table, replace(request, preset=name), digests)
        found.append(_judged(Candidate(name=name, plan=plan), own, request))
    if _has_time_to_spare(own, request):
        asked = replace(request, max_latency_ms=None, max_latency_ratio=BUDGETS["balanced"])
        plan = make_plan(facts, scores, table, asked, digests)
        found.append(Candidate(name=_SPARING, plan=plan))
    return _pruned(_without_twins(found), request)


def make_references(
    facts: GraphFacts, scores: Scores, table: CostTable, request: PlanRequest, digests: Digests
) -> tuple[Candidate, ...]:
    """The plans that the gain of final latents is measured on, under the rules of `request`.

    Its limits do not count: the gain is the model's.
    """
    free = replace(
        request,
        objective="balanced",
        max_latency_ms=None,
        max_latency_ratio=None,
        target_sqnr_db=None,
    )
    return tuple(
        Candidate(
            name=name, plan=make_plan(facts, scores, table, replace(free, preset=name), digests)
        )
        for name in REFERENCES
    )


def _has_time_to_spare(own: Candidate, request: PlanRequest) -> bool:
    """Whether `own` takes clearly more than the usual budget: what that buys may not be seen."""
    assert own.plan.prediction is not None
    assert own.plan.prediction.latency_ms_plain is not None
    usual = BUDGETS["balanced"] * own.plan.prediction.latency_ms_plain
    return request.target_sqnr_db is None and own.cost_ms > usual * (1.0 + _ROUNDED)


def _variants(
    facts: GraphFacts, scores: Scores, table: CostTable, request: PlanRequest, digests: Digests
) -> Iterator[Candidate]:
    """Other plans of `auto` itself, should its expectations be too high."""
    if request.target_sqnr_db is not None:
        for more in _HIGHER_TARGETS_DB:
            asked = replace(request, target_sqnr_db=request.target_sqnr_db + more)
            try:
                plan = make_plan(facts, scores, table, asked, digests)
            except SegQuantError:  # out of reach
                return
            yield Candidate(name=f"auto +{more:g} dB", plan=plan)
        return
    try:
        plan = make_plan(facts, _without_gptq(scores), table, request, digests)
    except SegQuantError:  # rules that want optimised weights
        return
    yield Candidate(name="auto without GPTQ", plan=plan)


def _without_gptq(scores: Scores) -> Scores:
    """Weights that were optimised on calibration rows may fit these rows too well."""
    sites = (
        replace(site, options=tuple(option for option in site.options if not _optimised(option)))
        for site in scores.sites
    )
    return replace(scores, sites=tuple(sites))


def _optimised(option: OptionScore) -> bool:
    weight = option.treatment.weight
    return weight is not None and weight.rounding == "gptq"


def _judged(candidate: Candidate, own: Candidate, request: PlanRequest) -> Candidate:
    """With the reason why it breaks the request's limits, if it does."""
    target = request.target_sqnr_db
    if target is not None and candidate.expected_db < target:
        reason = f"{candidate.expected_db:.1f} dB are expected of it, {target:g} asked for"
        return replace(candidate, refused=reason)
    if target is not None and not limits_latency(request):
        return candidate
    assert own.plan.prediction is not None
    assert own.plan.prediction.latency_ms_plain is not None
    budget = request.budget_ms(own.plan.prediction.latency_ms_plain)
    over = candidate.cost_ms > budget * (1.0 + _ROUNDED)
    reason = f"{candidate.cost_ms:.4g} ms, and at most {budget:.4g} are allowed"
    return replace(candidate, refused=reason) if over else candidate


def _without_twins(candidates: list[Candidate]) -> list[Candidate]:
    """Of plans that do the same the first one competes."""
    seen: dict[str, str] = {}
    kept = []
    for candidate in candidates:
        first = seen.setdefault(decisions_sha256(candidate.plan), candidate.name)
        same = first != candidate.name and candidate.refused is None
        kept.append(replace(candidate, pruned=f"the same as {first}") if same else candidate)
    return kept


def _pruned(candidates: list[Candidate], request: PlanRequest) -> tuple[Candidate, ...]:
    """Without presets that would have to beat all expectations; the best of them always stays."""
    running = [candidate for candidate in candidates if candidate.competes]
    presets = [candidate for candidate in running if candidate.name in _PUBLISHED]
    if not presets:
        return tuple(candidates)
    if request.target_sqnr_db is not None:
        spared = min(presets, key=lambda candidate: candidate.cost_ms)
        limit = candidates[0].cost_ms
        hopeless = {c.name for c in presets if c is not spared and c.cost_ms > limit}
        reason = f"dearer than {candidates[0].name} by the cost table"
    else:
        spared = max(presets, key=lambda candidate: candidate.expected_db)
        off = 2.0 * _EXPECTED_WITHIN_DB[request.weight_bits]
        limit = max(candidate.expected_db for candidate in running) - off
        rivals = (c for c in running if c.name in (*_PUBLISHED, _SPARING) and c is not spared)
        hopeless = {c.name for c in rivals if c.expected_db < limit}
        reason = f"expected to be more than {off:g} dB worse than the best"
    return tuple(replace(c, pruned=reason) if c.name in hopeless else c for c in candidates)
