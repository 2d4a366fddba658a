"""The user's rules for the planner: a small YAML file of patterns and what they admit."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal, TypeAlias, get_args

from segquant_trt.errors import SegQuantError
from segquant_trt.records.facts import LinearSite
from segquant_trt.records.treatment import KeepFloat, Treatment

Trait: TypeAlias = Literal[
    "symmetric", "shifted", "dual_scale", "dual_full", "static", "per_token", "per_step",
    "split", "smoothed", "w4", "w8", "nearest", "gptq", "float_activation",
]  # fmt: skip
TRAITS: tuple[Trait, ...] = get_args(Trait)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """For sites whose node or module name matches the pattern `sites`.

    `keep_float` leaves them in float; otherwise their treatment must have every trait of
    `require` and none of `forbid`.
    """

    sites: str
    keep_float: bool = False
    require: tuple[Trait, ...] = ()
    forbid: tuple[Trait, ...] = ()

    def matches(self, site: LinearSite) -> bool:
        """Whether the rule speaks of `site`."""
        return matches(site, self.sites)

    def admits(self, treatment: Treatment) -> bool:
        """Whether a matching site may be treated so."""
        traits = traits_of(treatment)
        return traits.issuperset(self.require) and traits.isdisjoint(self.forbid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All of a file's rules hold at once."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    rules: tuple[Rule, ...] = ()

    def check_used(self, sites: tuple[LinearSite, ...]) -> None:
        """Refuse a pattern without a match.

        Raises:
            SegQuantError: naming it.
        """
        for rule in self.rules:
            if not any(rule.matches(site) for site in sites):
                raise unmatched(rule.sites, sites, flag="the rule for")


def matches(site: LinearSite, pattern: str) -> bool:
    """Whether a shell pattern matches a site's node name or its module."""
    return fnmatchcase(site.name, pattern) or fnmatchcase(site.module or "", pattern)


def unmatched(pattern: str, sites: tuple[LinearSite, ...], *, flag: str) -> SegQuantError:
    """The error for a pattern that matches nothing."""
    examples = ", ".join(site.module or site.name for site in sites[:4])
    return SegQuantError(
        f"{flag} '{pattern}' matches none of the {len(sites)} sites "
        f"(their names begin with {examples}, ...)",
        hint="list the sites with 'segquant-trt inspect RUN/facts.yaml'",
    )


def traits_of(treatment: Treatment) -> frozenset[str]:
    """What rules can ask of a treatment."""
    found: set[str] = set()
    for part in treatment.segments:
        coded = not isinstance(part.activation, KeepFloat)
        found.add(part.activation.kind if coded else "float_activation")
        found.add(part.factor.kind)
    if len(treatment.segments) > 1:
        found.add("split")
    if treatment.smoothing is not None:
        found.add("smoothed")
    if treatment.weight is not None:
        found |= {f"w{treatment.weight.bits}", treatment.weight.rounding}
    return frozenset(found)
