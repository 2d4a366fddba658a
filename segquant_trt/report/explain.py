"""The story of one site: what it is, what was chosen and why, and what else there was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Protocol

from segquant_trt.errors import SegQuantError
from segquant_trt.records import GraphFacts, LinearSite, SegmentPlan, SitePlan
from segquant_trt.records.codec import to_plain
from segquant_trt.records.rules import matches
from segquant_trt.records.scores import OptionScore, SiteScore
from segquant_trt.report.description import Cell, Description, Property, Table, columns

_NAMED = 8


class WeighedOption(Protocol):
    """See `plan.Weighed`: stages do not import each other."""

    @property
    def scored(self) -> OptionScore | None:
        """The site's own score; None for float."""

    @property
    def noise(self) -> float:
        """Of the whole group at the denoiser's output."""

    @property
    def cost_ms(self) -> float:
        """Of the whole group."""

    @property
    def refusal(self) -> str | None:
        """Why it may not be chosen."""

    @property
    def chosen(self) -> bool:
        """Whether the plan says so."""


class SiteWeighing(Protocol):
    """See `plan.Weighing`."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Decided together."""

    @property
    def options(self) -> Sequence[WeighedOption]:
        """The cheapest first."""

    @property
    def noise(self) -> float | None:
        """The site's own under the plan."""

    @property
    def plan_noise(self) -> float | None:
        """That of all sites."""

    @property
    def unscored(self) -> tuple[str, ...]:
        """Sites whose treatment nobody scored."""


def find_site(facts: GraphFacts, text: str) -> LinearSite:
    """The site whose node or module is called `text`, or is the only one that the pattern matches.

    Raises:
        SegQuantError: there is none, or more than one; some names are listed.
    """
    exact = [site for site in facts.sites if site.name == text]
    found = exact or [site for site in facts.sites if site.module == text]
    found = found or [site for site in facts.sites if matches(site, text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SegQuantError(
            f"'{text}' names {len(found)} sites: {_listed([site.name for site in found])}",
            hint="give one node name, or a pattern that matches one site only",
        )
    near = _near(facts, text)
    told = f"; near ones are {_listed(near)}" if near else ""
    raise SegQuantError(
        f"'{text}' names none of the {len(facts.sites)} sites{told}",
        hint="list the sites with 'segquant-trt inspect RUN/facts.yaml --all'",
    )


def explain(
    site: LinearSite,
    facts: GraphFacts,
    score: SiteScore,
    planned: SitePlan,
    weighing: SiteWeighing,
    *,
    notes: Sequence[str] = (),
) -> Description:
    """Facts, decision and alternatives of one site.

    Args:
        site: which.
        facts: of the graph.
        score: of the site.
        planned: what the plan says of it.
        weighing: every option with its noise and cost.
        notes: remarks of the caller, such as that the plan is older than the scores.
    """
    told = [*notes]
    if len(weighing.sites) > 1:
        told.append(
            f"one coding of '{site.activation}' serves {len(weighing.sites)} sites: noise at the "
            "output and cost are those of all of them"
        )
    if weighing.unscored:
        told.append(
            f"the plan was edited: {_listed(weighing.unscored)} is treated in a way that was not "
            "scored, and shares of its expected error are unknown"
        )
    return Description(
        kind="site",
        properties=(*_identity(site, facts), *_decision(score, planned, weighing)),
        tables=tuple(
            table
            for table in (
                _segments(site, facts),
                _near_misses(site, facts),
                _codes(planned),
                _options(weighing),
            )
            if table.rows
        ),
        notes=tuple(told),
    )


def _identity(site: LinearSite, facts: GraphFacts) -> tuple[Property, ...]:
    polarity = [
        f"{entry.activation}{'' if entry.segment is None else f' in segment {entry.segment}'}"
        for entry in facts.polarity
        if entry.site == site.name
    ]
    return (
        Property(name="site", value=site.name),
        Property(name="module", value=site.module),
        Property(name="operator", value=site.op),
        Property(name="role", value=site.role),
        Property(name="inputs", value=site.in_features),
        Property(name="outputs", value=site.out_features),
        Property(name="kernel", value="x".join(map(str, site.kernel)) or None),
        Property(name="groups", value=site.groups),
        Property(name="reads", value=site.activation),
        Property(name="after", value=", ".join(polarity) or None),
        Property(name="depends on", value=_dependence(site, facts)),
    )


def _dependence(site: LinearSite, facts: GraphFacts) -> str | None:
    if any(entry.site == site.name for entry in facts.timestep_only):
        return "the timestep alone"
    if site.name in facts.prompt_constant:
        return "the prompt alone"
    return "prompt and timestep alone" if site.name in facts.prompt_and_timestep else None


def _decision(score: SiteScore, planned: SitePlan, weighing: SiteWeighing) -> tuple[Property, ...]:
    own, whole = weighing.noise, weighing.plan_noise
    share = own / whole if own is not None and whole else None
    others = [name for name in weighing.sites if name != planned.site]
    chosen = next((option for option in weighing.options if option.chosen), None)
    sqnr = chosen.scored.sqnr_db if chosen is not None and chosen.scored is not None else None
    return (
        Property(name="decided with", value=_listed(others) or None),
        Property(name="rows per sample", value=score.rows_per_sample),
        Property(name="MACs per sample", value=planned.macs_per_sample, unit="number"),
        Property(name="amplification", value=score.amplification),
        Property(name="chosen", value=planned.treatment.label),
        Property(name="why", value=planned.why),
        Property(name="SQNR at the site, dB", value=sqnr, unit="number"),
        Property(name="share of expected error", value=share, unit="share"),
    )


def _segments(site: LinearSite, facts: GraphFacts) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for entry in facts.segments:
        if entry.site == site.name:
            pattern = f"{entry.pattern}{' (trivial)' if entry.trivial else ''}"
            for size, tensor in zip(entry.sizes, entry.tensors, strict=False):
                rows.append((entry.side, pattern, size, tensor or None))
    return Table(
        title="segments",
        columns=columns("side", "pattern", ("channels", "count"), "tensor"),
        rows=tuple(rows),
    )


def _near_misses(site: LinearSite, facts: GraphFacts) -> Table:
    return Table(
        title="near misses",
        columns=columns("pattern", "why not", "nodes"),
        rows=tuple(
            (miss.pattern, miss.reason, _listed(miss.nodes))
            for miss in facts.rejections
            if miss.site == site.name
        ),
    )


def _codes(planned: SitePlan) -> Table:
    treatment = planned.treatment
    rows: list[tuple[Cell, ...]] = []
    if treatment.weight is not None:
        for index, part in enumerate(treatment.segments):
            words = _words(part)
            of = f"input segment {index}" if len(treatment.segments) > 1 else "input"
            rows.append((of, part.channels, part.activation.kind, words))
        weight = to_plain(treatment.weight)
        kind = f"{weight.pop('bits')} bits, {weight.pop('rounding')}"
        rows.append(("weight", None, kind, _figures(weight)))
    if treatment.smoothing is not None:
        rows.append(("divisor", None, "smoothing", _figures(to_plain(treatment.smoothing))))
    return Table(
        title="codes", columns=columns("of", ("channels", "count"), "kind", "figures"),
        rows=tuple(rows),
    )  # fmt: skip


def _words(part: SegmentPlan) -> str:
    figures = {name: v for name, v in to_plain(part.activation).items() if name != "kind"}
    factor = to_plain(part.factor)
    kind = factor.pop("kind")
    return "; ".join(filter(None, (_figures(figures), kind, _figures(factor))))


def _figures(values: dict[str, object]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {_figure(value)}"
        for name, value in values.items()
        if value is not None
    )


def _figure(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(_figure, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _options(weighing: SiteWeighing) -> Table:
    rows: list[tuple[Cell, ...]] = []
    quietest = math.inf
    for option in weighing.options:
        useful = option.noise < quietest
        rows.append(
            (
                _label(option.scored),
                None if option.scored is None else option.scored.sqnr_db,
                -10.0 * math.log10(option.noise) if option.noise > 0.0 else None,
                option.cost_ms,
                _verdict(option, useful=useful),
            )
        )
        if option.scored is not None and option.refusal is None:
            quietest = min(quietest, option.noise)
    return Table(
        title="options, the cheapest first",
        columns=columns(
            "option",
            ("site, dB", "number"),
            ("output, dB", "number"),
            ("cost, ms", "number"),
            "verdict",
        ),
        rows=tuple(rows),
    )


def _label(scored: OptionScore | None) -> str:
    if scored is None:
        return "left in float"
    plain, told = scored.treatment.label, scored.label
    return told.replace("float", "weights alone", 1) if plain.startswith("float") else told


def _verdict(option: WeighedOption, *, useful: bool) -> str:
    if option.chosen:
        return "chosen"
    if option.refusal is not None:
        return f"not admitted: {option.refusal}"
    if option.scored is None:
        return "silent, but no integers"
    return "worth its price" if useful else "a cheaper one is as quiet"


def _near(facts: GraphFacts, text: str) -> list[str]:
    names = [name for site in facts.sites for name in (site.module, site.name) if name]
    inside = [name for name in names if text.strip("*").lower() in name.lower()]
    close = get_close_matches(text, names, n=_NAMED, cutoff=0.4)
    return list(dict.fromkeys([*inside, *close]))[:_NAMED]


def _listed(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else ""
    return ", ".join(distinct[:_NAMED]) + more
