"""The part that a site plays, told by data flow rather than by layer names.

* `modulation`: its activation depends only on vector inputs (timestep, pooled text, guidance,
  class, sizes), never on the latent or on tokens;
* `embedder`: the first site that the latent passes, or the only one that reads another input;
* `final`: nothing but cheap nodes between it and the output;
* `body`: the rest.

NVIDIA's exclusion lists for SDXL and FLUX name the first three by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from segquant_trt.graph.taint import Taint, reached_from
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import LinearSite, SiteRole

_VECTOR_RANK = 2
_UNKNOWN_RANK = _VECTOR_RANK + 1  # leaving a whole network in float needs better grounds


def site_roles(
    wiring: Wiring,
    sites: Sequence[LinearSite],
    dependence: Mapping[str, Taint],
    ranks: Mapping[str, int],
) -> dict[str, SiteRole]:
    """Role of every site by name."""
    vectors = {
        name for name in wiring.graph_inputs if ranks.get(name, _UNKNOWN_RANK) <= _VECTOR_RANK
    }
    modulation = {site.name for site in sites if dependence[site.activation] <= vectors}
    body = [site for site in sites if site.name not in modulation]
    behind_a_site = reached_from(wiring, frozenset(site.output for site in body))
    first = [site for site in body if site.activation not in behind_a_site]
    latent = latent_input(wiring, ranks)
    readers = Counter(name for site in first for name in dependence[site.activation] - vectors)
    roles: dict[str, SiteRole] = {}
    for site in sites:
        if site.name in modulation:
            roles[site.name] = "modulation"
        elif site in first and any(
            name == latent or readers[name] == 1 for name in dependence[site.activation] - vectors
        ):
            roles[site.name] = "embedder"
        elif _is_final(wiring, site, body):
            roles[site.name] = "final"
        else:
            roles[site.name] = "body"
    return roles


def latent_input(wiring: Wiring, ranks: Mapping[str, int]) -> str | None:
    """The first graph input that is no vector: every denoiser's latent comes first."""
    return next(
        (name for name in wiring.graph_inputs if ranks.get(name, _UNKNOWN_RANK) > _VECTOR_RANK),
        None,
    )


def _is_final(wiring: Wiring, site: LinearSite, body: Sequence[LinearSite]) -> bool:
    activations = {other.activation for other in body}
    pending, seen = [site.output], {site.output}
    found_output = False
    while pending:
        name = pending.pop()
        if name in activations:
            return False
        found_output = found_output or name in wiring.graph_outputs
        for node in wiring.consumers.get(name, []):
            fresh = [out for out in node.output if out not in seen]
            seen.update(fresh)
            pending.extend(fresh)
    return found_output
