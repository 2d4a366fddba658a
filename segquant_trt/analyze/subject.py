"""What an analysis is given, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import TypeAlias

from segquant_trt.analyze.trail import Trails
from segquant_trt.graph.match import Rejection
from segquant_trt.graph.view import GraphView
from segquant_trt.records import (
    LinearSite,
    SitePolarity,
    SiteSegments,
    TimestepOnlySite,
)
from segquant_trt.records import Rejection as NearMiss


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A graph, its sites, and the inputs taken for timestep and prompts."""

    view: GraphView
    sites: tuple[LinearSite, ...]
    trails: Trails
    timestep: str | None
    prompt_inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Facts of one or several analyses; each lists its sites in graph order."""

    segments: tuple[SiteSegments, ...] = ()
    polarity: tuple[SitePolarity, ...] = ()
    timestep_only: tuple[TimestepOnlySite, ...] = ()
    prompt_constant: tuple[str, ...] = ()
    prompt_and_timestep: tuple[str, ...] = ()
    rejections: tuple[NearMiss, ...] = ()

    @classmethod
    def merged(cls, parts: Iterable[Findings]) -> Findings:
        """All facts, in the order of the analyses; repeated rejections once."""
        parts = list(parts)
        joined = {
            field.name: tuple(item for part in parts for item in getattr(part, field.name))
            for field in fields(cls)
        }
        return cls(**joined | {"rejections": tuple(dict.fromkeys(joined["rejections"]))})


Analysis: TypeAlias = Callable[[Subject], Findings]


def near_miss(site: LinearSite, pattern: str, rejection: Rejection) -> NearMiss:
    """The record of a rejection."""
    nodes = rejection.nodes or (site.name,)
    return NearMiss(site=site.name, pattern=pattern, reason=rejection.reason, nodes=nodes)
