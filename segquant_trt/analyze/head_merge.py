"""Inputs that are heads merged by Transpose and Reshape.

| upstream of the site                               | segments                      |
|----------------------------------------------------|-------------------------------|
| `[B, H, S, D] -> Transpose -> Reshape [B, S, H*D]` | one of size D per head        |
| `[B*H, S, D] -> Reshape, Transpose, Reshape`       | the same                      |
| a fused attention that answers `[B, S, H*D]`       | the same, from its attributes |
| these of several groups of tokens, joined          | the same, when all agree      |
| three or more merged axes (patches)                | rejected                      |
| heads inside a segment of a Concat                 | rejected: the Concat is kept  |
"""

from __future__ import annotations

from onnx import NodeProto

from segquant_trt.analyze.subject import Findings, Subject, near_miss
from segquant_trt.analyze.trail import Trail, follow
from segquant_trt.graph.attributes import int_attribute
from segquant_trt.graph.axes import Crossed, Ended, Joined, marked
from segquant_trt.graph.dims import Dim
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.records import LinearSite, SiteSegments

_FUSED = frozenset(("Attention", "MultiHeadAttention", "GroupQueryAttention"))


def find(subject: Subject) -> Findings:
    """Merged heads at the inputs of all sites."""
    segments, misses = [], []
    for site in subject.sites:
        found = match_heads(site, subject)
        if isinstance(found, Match):
            segments.append(found.value)
        elif found is not None:
            misses.append(near_miss(site, "head_merge", found))
    return Findings(segments=tuple(segments), rejections=tuple(misses))


def match_heads(site: LinearSite, subject: Subject) -> Match[SiteSegments] | Rejection | None:
    """The heads at the site's input, None where nothing is merged."""
    trail = subject.trails.of_input(site)
    if trail is None:
        return None
    match trail.outcome:
        case Joined() as join:
            inner = [follow(piece, subject.view) for piece in join.pieces]
            merged = [part for part in inner if isinstance(_heads(part), tuple)]
            if not merged:
                return None
            return rejected("its heads are merged inside a segment of a Concat", join.node)
        case Crossed(places=places):
            parts = {_heads(follow(place, subject.view)) for place in places}
            heads = parts.pop() if len(parts) == 1 else None
        case _:
            heads = _heads(trail)
    if not isinstance(heads, tuple):
        return None if isinstance(trail.outcome, Crossed) else heads
    count, size = heads
    return Match(
        SiteSegments(
            site=site.name,
            module=site.module,
            side="input",
            pattern="head_merge",
            sizes=(size,) * count,
            tensors=(trail.end.tensor,) * count,
        )
    )


def _heads(trail: Trail) -> tuple[int, int] | Rejection | None:
    """(heads, head size) where the trail ends."""
    factors = marked(trail.end.layout)
    if isinstance(trail.outcome, Ended) and trail.outcome.reason:
        return None
    if len(factors) == 1 and isinstance(trail.outcome, Ended):
        return _fused_heads(trail.outcome.node, trail.end.tensor, factors[0][1].extent)
    if len({axis for axis, _ in factors}) < 2:
        return None
    if len(factors) > 2:
        return rejected("more than two axes are merged: patches, no heads", *trail.nodes[-1:])
    (_, outer), (_, inner) = factors
    if not isinstance(outer.extent, int) or not isinstance(inner.size, int):
        return rejected("the number or size of its heads is unknown", *trail.nodes[-1:])
    if not outer.full:
        return None
    # Linear attention cuts a row of sums off every head before it merges them.
    return outer.extent, inner.size


def _fused_heads(node: NodeProto | None, tensor: str, width: Dim) -> tuple[int, int] | None:
    """The heads of an attention operator's first output."""
    if node is None or node.op_type not in _FUSED or tensor != node.output[0]:
        return None
    if not isinstance(width, int):
        return None
    names = ("q_num_heads", "num_heads")
    heads = max(int_attribute(node, name, 0) for name in names)
    return (heads, width // heads) if heads > 1 and width % heads == 0 else None
