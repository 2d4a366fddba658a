"""Weights that serve several sites: what is done to one site's copy must not reach the others."""

from __future__ import annotations

from collections import defaultdict

from segquant_trt.analyze.subject import Findings, Subject, near_miss
from segquant_trt.graph.match import Rejection
from segquant_trt.records import LinearSite


def find(subject: Subject) -> Findings:
    """One near miss for every site whose initializer serves another one too."""
    users: dict[str, list[LinearSite]] = defaultdict(list)
    for site in subject.sites:
        users[site.weight].append(site)
    shared = {name: tuple(s.name for s in sites) for name, sites in users.items() if len(sites) > 1}
    return Findings(
        rejections=tuple(
            near_miss(
                site,
                "shared_weight",
                Rejection(
                    f"weight '{site.weight}' serves {len(shared[site.weight])} sites; "
                    "it must be copied before one of them is changed",
                    shared[site.weight],
                ),
            )
            for site in subject.sites
            if site.weight in shared
        )
    )
