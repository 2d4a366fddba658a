"""The planner's choices: for every group of sites, options with a cost and noise per bin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.plan.costs import CostModel, Scaling, Shape, shape_of
from segquant_trt.records import FreeDivisors, GraphFacts, LinearSite, left_in_float
from segquant_trt.records.scores import OptionScore, Scores, SiteScore

Double = npt.NDArray[np.float64]
Allowed = Callable[[LinearSite, SiteScore, OptionScore], bool]
OutputNoise = Callable[[SiteScore, OptionScore], Sequence[float]]

FLOAT = -1
NO_DIVISOR = FreeDivisors()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One treatment for all quantised sites of a group.

    `index` is its place in the scores, `FLOAT` for leaving the group in float. `noise`:
    float64[B], at the denoiser's output, requantised outputs included. `float_macs` are done in
    float.
    """

    index: int
    cost_ms: float
    noise: Double
    float_macs: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A group's quantised sites, and the options that the target and the user allow for it."""

    tensor: str
    sites: tuple[str, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """All groups. `kept_ms` is what sites that stay in float cost, whatever is chosen.

    `float_room`: MACs that may be left in float besides.
    """

    choices: tuple[Choice, ...]
    kept_ms: float
    float_room: float


def make_problem(
    facts: GraphFacts,
    scores: Scores,
    costs: CostModel,
    *,
    batch: int,
    scaling: Scaling,
    kept: Mapping[str, str],
    allowed: Allowed,
    admits_float: Callable[[LinearSite], bool],
    output_noise: OutputNoise,
    float_share: float,
    absent: Collection[str] = (),
    folded: FreeDivisors = NO_DIVISOR,
) -> Problem:
    """Collect what may be chosen.

    Args:
        facts: the sites.
        scores: their options.
        costs: of the target.
        batch: samples of one call.
        scaling: see `Scaling`.
        kept: sites that stay in float, and why.
        allowed: whether the target and the user's rules admit an option at a site.
        admits_float: whether the rules let a site stay in float.
        output_noise: what requantising a site's output adds under an option.
        float_share: of all MACs, that choices may leave in float.
        absent: sites in `kept` that no call computes: they cost nothing.
        folded: divisors that cost nothing.
    """
    sites = {site.name: site for site in facts.sites}
    groups: dict[str, list[SiteScore]] = {}
    kept_ms = 0.0
    for score in scores.sites:
        site = sites[score.site]
        if score.site in absent:
            continue
        if score.site in kept:
            shape = shape_of(site, score, batch, scaling)
            kept_ms += costs.product_ms(left_in_float(site.in_features), shape)
        else:
            groups.setdefault(score.group, []).append(score)
    choices = tuple(
        _choice(
            *(tensor, members, sites, costs, batch, scaling, allowed, admits_float, output_noise),
            folded=folded,
        )
        for tensor, members in groups.items()
    )
    computed = [score for score in scores.sites if score.site not in absent]
    shapes = [shape_of(sites[score.site], score, batch, scaling) for score in computed]
    room = float_share * sum(shape.macs for shape in shapes)
    return Problem(choices=choices, kept_ms=kept_ms, float_room=room)


def _choice(
    tensor: str,
    members: Sequence[SiteScore],
    sites: Mapping[str, LinearSite],
    costs: CostModel,
    batch: int,
    scaling: Scaling,
    allowed: Allowed,
    admits_float: Callable[[LinearSite], bool],
    output_noise: OutputNoise,
    *,
    folded: FreeDivisors,
) -> Choice:
    shapes = [shape_of(sites[s.site], s, batch, scaling) for s in members]
    options = []
    for index in range(len(members[0].options)):
        scored = [score.options[index] for score in members]
        pairs = list(zip(members, scored, strict=True))
        if not all(allowed(sites[score.site], score, option) for score, option in pairs):
            continue
        treatments = [option.treatment for option in scored]
        cost = costs.input_ms(treatments[0], shapes[0], folded=folded.under(treatments[0], tensor))
        cost += sum(costs.product_ms(t, s) for t, s in zip(treatments, shapes, strict=True))
        noise = np.sum([option.noise for option in scored], axis=0)
        noise = noise + np.sum([output_noise(score, option) for score, option in pairs], axis=0)
        options.append(Option(index=index, cost_ms=cost, noise=noise))
    if options and all(admits_float(sites[score.site]) for score in members):
        options.append(_in_float(members, sites, costs, shapes))
    return Choice(
        tensor=tensor, sites=tuple(score.site for score in members), options=tuple(options)
    )


def _in_float(
    members: Sequence[SiteScore],
    sites: Mapping[str, LinearSite],
    costs: CostModel,
    shapes: Sequence[Shape],
) -> Option:
    treatments = [left_in_float(sites[score.site].in_features) for score in members]
    cost = sum(costs.product_ms(t, s) for t, s in zip(treatments, shapes, strict=True))
    return Option(
        index=FLOAT,
        cost_ms=cost,
        noise=np.zeros(len(members[0].range_noise)),
        float_macs=sum(shape.macs for shape in shapes),
    )
