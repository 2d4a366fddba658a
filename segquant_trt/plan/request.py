"""What the user asks of a plan, and which sites and treatments that leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

from segquant_trt.backends import backend_for
from segquant_trt.errors import SegQuantError
from segquant_trt.plan.costs import Scaling
from segquant_trt.plan.presets import weight_only
from segquant_trt.records import (
    FreeDivisors,
    GraphFacts,
    LinearSite,
    PerStep,
    SitePlan,
    Static,
    Target,
    Treatment,
    left_in_float,
)
from segquant_trt.records.codec import read_record
from segquant_trt.records.options import (
    CompileOptions,
    Objective,
    PresetName,
    WeightScaleMethod,
)
from segquant_trt.records.rules import Rules, matches, unmatched
from segquant_trt.records.scores import OptionScore, SiteScore

BUDGETS: dict[Objective, float] = {"speed": 1.0, "balanced": 1.03, "quality": 1.2}
"""Latency that each objective allows by the cost table, over that of plain static INT8.

Tables err by a few percent, so these stay below the 1.05 and 1.25 that are to hold when timed.
"""

_KEPT_ROLES = {
    "embedder": "an embedder: its error enters every block (kept in float; "
    "--quantize-all overrides)",
    "modulation": "modulation: one row per image, hardly any work, and it steers every token "
    "(kept in float; --quantize-all overrides)",
    "final": "the final projection: its error is the output's (kept in float; "
    "--quantize-all overrides)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What the user asks of a plan. `keep_float` are patterns over site and module names.

    `max_latency`: milliseconds; `max_latency_ratio`: over plain static INT8. With `target_sqnr_db`
    the fastest plan that is expected to reach it is made. `float_share` of all MACs is what `auto`
    may leave in float beside the sites that are kept there. `frozen`: a schedule is, so tables
    take the place of what depends on the timestep alone; `hoisted`: so is what a prompt fixes.
    `folded` are the divisors that cost nothing. `samples_elsewhere`: activations whose first axis
    is not that of the timestep's samples. `removed`: sites that tables and hoisting take out of
    the graph; None: what the facts call dependent on nothing else.
    """

    target: Target
    preset: PresetName = "auto"
    objective: Objective = "balanced"
    max_latency_ms: float | None = None
    max_latency_ratio: float | None = None
    target_sqnr_db: float | None = None
    float_share: float = 0.015
    weight_bits: int = 8
    weight_only: bool = False
    weight_block: int | None = None
    weight_scales: WeightScaleMethod = "absmax"
    quantize_all: bool = False
    keep_float: tuple[str, ...] = ()
    rules: Rules = field(default_factory=Rules)
    scaling: Scaling = field(default_factory=Scaling)
    frozen: bool = False
    hoisted: bool = False
    folded: FreeDivisors = field(default_factory=FreeDivisors)
    samples_elsewhere: frozenset[str] = frozenset()
    removed: frozenset[str] | None = None

    def kept(self, facts: GraphFacts) -> dict[str, str]:
        """Sites that stay in float, and why.

        Raises:
            SegQuantError: a pattern matches no site, or nothing is left to quantise.
        """
        for pattern in self.keep_float:
            if not any(matches(site, pattern) for site in facts.sites):
                raise unmatched(pattern, facts.sites, flag="--keep-float")
        self.rules.check_used(facts.sites)
        reasons = {site.name: self._reason(site) for site in facts.sites}
        if all(reasons.values()):
            raise SegQuantError(
                f"all {len(reasons)} sites would stay in float: nothing to quantise",
                hint="drop some --keep-float patterns, or use --quantize-all",
            )
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _reason(self, site: LinearSite) -> str | None:
        for pattern in self.keep_float:
            if matches(site, pattern):
                return f"kept in float by --keep-float '{pattern}'"
        for rule in self.rules.rules:
            if rule.keep_float and rule.matches(site):
                return f"kept in float by the rule for '{rule.sites}'"
        if site.has_coded_weight:
            return "its weight is quantised already"
        if site.role != "body" and not self.quantize_all:
            return _KEPT_ROLES[site.role]
        if self.weight_only and site.op == "Conv":
            return "a convolution: weights alone are coded in linears only"
        return None

    def budget_ms(self, plain_ms: float) -> float:
        """What a plan may take, where plain static INT8 takes `plain_ms`."""
        if self.max_latency_ms is not None:
            return self.max_latency_ms
        ratio = self.max_latency_ratio
        return plain_ms * (BUDGETS[self.objective] if ratio is None else ratio)

    @property
    def codes_channels(self) -> bool:
        """Whether requantised outputs get a scale per channel: published methods do not."""
        return self.preset == "auto" and backend_for(self.target).placement.output_channels

    def output_noise(self, score: SiteScore, option: OptionScore) -> tuple[float, ...]:
        """What requantising a site's output adds per bin: nothing where the target does not."""
        if not backend_for(self.target).placement.requantize_conv_output:
            return (0.0,) * len(score.range_noise)
        output = score.output(option)
        return output.channels_noise if self.codes_channels else output.range_noise

    def output_codes(
        self, site: LinearSite, score: SiteScore, option: OptionScore
    ) -> tuple[tuple[float, float], str | None]:
        """`output_range` and `output_channels` of a site's plan under an option."""
        output = score.output(option)
        by_channel = site.op == "Conv" and self.codes_channels
        return output.range, output.channels if by_channel else None

    def allows(self, site: LinearSite, score: SiteScore, option: OptionScore) -> bool:
        """Whether the target, the bit widths and the user's rules admit an option."""
        return self.refusal(site, score, option) is None

    def refusal(self, site: LinearSite, score: SiteScore, option: OptionScore) -> str | None:
        """Why an option may not be chosen; None where it may."""
        treatment = option.treatment
        weight = treatment.weight
        if weight is None or weight.bits != self.weight_bits:
            return f"{self.weight_bits}-bit weights are asked for"
        if weight_only(treatment) != self.weight_only:
            return "weights alone are to be coded" if self.weight_only else "its inputs stay float"
        if weight.block != self.weight_block:
            size = "output channel" if self.weight_block is None else f"{self.weight_block} inputs"
            return f"one weight scale per {size} is asked for"
        planned = SitePlan(
            site=site.name,
            module=site.module,
            treatment=treatment,
            output_range=score.output_range,
            output_channels=score.output_channels,
            macs_per_sample=0,
            why="",
            considered=(),
        )
        placement = backend_for(self.target).placement
        lacking = placement.lacks(site, planned)
        if lacking is not None:
            return f"{self.target} has no {lacking}"
        requantized = site.op == "Conv" and placement.requantize_conv_output
        factors = any(not isinstance(s.factor, Static) for s in treatment.segments)
        if requantized and factors and option.output is None:
            return "ranges are known of outputs, not of outputs over this row factor"
        stepped = any(isinstance(s.factor, PerStep) for s in treatment.segments)
        if stepped and site.activation in self.samples_elsewhere:
            return "the first axis of its input is not that of the timestep's samples"
        return self._forbidden(site, treatment)

    def admits_float(self, site: LinearSite) -> bool:
        """Whether the user's rules let a site stay in float that need not."""
        return self._forbidden(site, left_in_float(site.in_features)) is None

    def _forbidden(self, site: LinearSite, treatment: Treatment) -> str | None:
        for rule in self.rules.rules:
            if rule.matches(site) and not rule.admits(treatment):
                return f"the rule for '{rule.sites}' does not admit it"
        return None


def plan_request(options: CompileOptions) -> PlanRequest:
    """The request that a compilation's options make; its rules are read from their file.

    Raises:
        SegQuantError: the rules' file is missing, truncated or not one of rules.
    """
    limit = options.latency_limit()
    rows, width = options.cost_factors()
    return PlanRequest(
        target=options.target,
        preset=options.preset,
        objective=options.objective,
        max_latency_ms=limit[0] if limit is not None and not limit[1] else None,
        max_latency_ratio=limit[0] if limit is not None and limit[1] else None,
        target_sqnr_db=options.target_sqnr,
        weight_bits=options.weight_bits,
        weight_only=options.weight_only,
        weight_block=options.block(),
        weight_scales=options.weight_scales,
        quantize_all=options.quantize_all,
        keep_float=options.keep_float,
        rules=Rules() if options.rules is None else read_record(options.rules, Rules),
        scaling=Scaling(rows=rows, width=width),
        frozen=options.freeze_schedule is not None,
        hoisted=options.hoist_prompt,
    )
