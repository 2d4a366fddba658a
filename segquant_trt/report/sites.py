"""The per-site table: plan, facts and measured error joined by site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segquant_trt.records import (
    Considered,
    GraphFacts,
    LinearSite,
    Quality,
    QuantPlan,
    SegmentPlan,
    SitePlan,
)
from segquant_trt.records.codec import to_plain
from segquant_trt.report.words import words_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One row. `error_db` is the denoiser's output SQNR with this site alone quantised."""

    index: int
    site: str
    module: str | None
    role: str
    shape: str
    scheme: str
    words: tuple[str, ...]
    codes: tuple[str, ...]
    macs_share: float
    error_db: float | None
    why: str
    considered: tuple[Considered, ...]

    @property
    def name(self) -> str:
        """The torch module where there is one, else the graph's node."""
        return self.module or self.site


def site_rows(facts: GraphFacts, plan: QuantPlan, quality: Quality) -> tuple[SiteRow, ...]:
    """One row per planned site, in plan order."""
    facts_of = {site.name: site for site in facts.sites}
    errors = {error.site: error.sqnr_db for error in quality.site_errors}
    macs_total = sum(site.macs_per_sample for site in plan.sites)
    return tuple(
        _row(index, site, facts_of.get(site.site), errors, macs_total)
        for index, site in enumerate(plan.sites, start=1)
    )


def _row(
    index: int,
    site: SitePlan,
    fact: LinearSite | None,
    errors: Mapping[str, float],
    macs_total: int,
) -> SiteRow:
    weight = site.treatment.weight
    return SiteRow(
        index=index,
        site=site.site,
        module=site.module,
        role=fact.role if fact else "unknown",
        shape=_shape(fact) if fact else "",
        scheme=site.treatment.label,
        words=words_of(site.treatment),
        codes=tuple(_codes(part) for part in site.treatment.segments) if weight else (),
        macs_share=site.macs_per_sample / macs_total if macs_total else 0.0,
        error_db=errors.get(site.site),
        why=site.why,
        considered=site.considered,
    )


def _codes(part: SegmentPlan) -> str:
    """Scales and shifts of one segment's codes, in words."""
    values = to_plain(part.activation)
    words = (
        f"{name.replace('_', ' ')} {value:.3g}" for name, value in values.items() if name != "kind"
    )
    return ", ".join(words) or "float"


def _shape(fact: LinearSite) -> str:
    times = "\N{MULTIPLICATION SIGN}"
    kernel = f", {times.join(map(str, fact.kernel))}" if fact.kernel else ""
    groups = f", {fact.groups} groups" if fact.groups > 1 else ""
    return f"{fact.op} {fact.in_features} \N{RIGHTWARDS ARROW} {fact.out_features}{kernel}{groups}"
