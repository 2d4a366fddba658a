"""Inputs that several tensors make up, one after the other along the contraction axis.

| upstream of the site                                                   | segments        |
|------------------------------------------------------------------------|-----------------|
| `Concat(a, b)` on the contraction axis, also behind norms, activations | `a`, `b`        |
| `Concat(Concat(a, b), c)`, also with such nodes in between             | `a`, `b`, `c`   |
| `Unsqueeze` each, `Concat` on the new axis, merge with the next one    | one per operand |
| slices of a Concat that fall on its borders                            | its operands    |
| `Concat` on another axis, such as tokens                               | rejected        |
| `Concat` on an inner part of the axis (interleaved)                    | rejected        |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segquant_trt.analyze.subject import Findings, Subject, near_miss
from segquant_trt.analyze.trail import Trail, follow
from segquant_trt.graph.axes import Crossed, Ended, Joined, Mixed, marked
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.pointwise import CASTS
from segquant_trt.graph.view import GraphView
from segquant_trt.records import LinearSite, SiteSegments

_JOINS = frozenset(("Concat", "ConcatFromSequence"))
_SELECTIONS = _JOINS | {"Slice", "Split", "Gather", "SequenceAt", "SplitToSequence", "Identity"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """`size` contraction channels that `tensor` produces.

    `keeps_values`: the site reads the tensor's own values, not a norm or function of them.
    """

    tensor: str
    size: int
    keeps_values: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The segments in order; `stacked` when equal slices were stacked on an axis of their own."""

    segments: tuple[Segment, ...]
    stacked: bool


def find(subject: Subject) -> Findings:
    """Segmented inputs of all sites."""
    segments, misses = [], []
    for site in subject.sites:
        for found in matches(site, subject):
            if isinstance(found, Match):
                segments.append(_record(site, found.value, subject.view))
            else:
                misses.append(near_miss(site, "concat", found))
    return Findings(segments=tuple(segments), rejections=tuple(misses))


def matches(site: LinearSite, subject: Subject) -> Iterator[Match[Segmentation] | Rejection]:
    """At most one segmentation of the site's input, and the near misses around it."""
    trail = subject.trails.of_input(site)
    if trail is None:
        yield Rejection(f"the shape of its input '{site.activation}' is unknown")
        return
    match trail.outcome:
        case Joined() as join:
            misses: list[Rejection] = []
            segments = tuple(_leaves(join, trail.keeps_values, subject.view, misses))
            total = sum(segment.size for segment in segments)
            if total == site.in_features:
                yield Match(Segmentation(segments=segments, stacked=join.stacked))
            else:
                yield rejected(
                    f"its parts have {total} channels, not {site.in_features}", join.node
                )
            yield from misses
        case Crossed(node=node, axis=axis):
            yield rejected(f"{node.op_type} joins axis {axis}, not the contraction axis", node)
        case Mixed() as mixed:
            yield from _combined(mixed, subject.view)
        case Ended(node=node, reason=reason) if reason and node is not None:
            yield rejected(reason, node)


def _leaves(
    join: Joined, keeps: bool, view: GraphView, misses: list[Rejection]
) -> Iterator[Segment]:
    for piece, size in zip(join.pieces, join.sizes, strict=True):
        trail = follow(piece, view)
        inner = trail.outcome
        if isinstance(inner, Joined) and sum(inner.sizes) == size:
            yield from _leaves(inner, keeps and trail.keeps_values, view, misses)
            continue
        tensor = _selected(trail) or _producer(piece.tensor, join, view)
        yield Segment(tensor=tensor, size=size, keeps_values=keeps)
        miss = _inner_miss(trail, piece.tensor)
        if miss is not None:
            misses.append(miss)


def _selected(trail: Trail) -> str | None:
    """The operand of another Concat that the segment is a slice of, if it is all of it."""
    found = None
    for step in trail.steps:
        kinds = {node.op_type for node in step.nodes}
        if not kinds <= _SELECTIONS:
            break
        if kinds & _JOINS and all(factor.full for _, factor in marked(step.place.layout)):
            found = step.place.tensor
    return found


def _producer(tensor: str, join: Joined, view: GraphView) -> str:
    """The operand; of a stack, what was given its new axis."""
    maker = view.wiring.producer.get(tensor)
    unsqueezed = join.stacked and maker is not None and maker.op_type in ("Unsqueeze", "Reshape")
    return maker.input[0] if unsqueezed and maker is not None else tensor


def _inner_miss(trail: Trail, tensor: str) -> Rejection | None:
    match trail.outcome:
        case Ended(node=node, reason=reason) if reason and node and node.op_type in _JOINS:
            return rejected(f"inside the segment '{tensor}': {reason}", node)
        case Crossed(node=node, axis=axis) if trail.keeps_values:
            return rejected(
                f"inside the segment '{tensor}': {node.op_type} joins axis {axis}, "
                "not the contraction axis",
                node,
            )
        case _:
            return None


def _combined(mixed: Mixed, view: GraphView) -> Iterator[Rejection]:
    for place in mixed.places:
        outcome = follow(place, view).outcome
        if isinstance(outcome, Joined):
            yield rejected(
                f"the parts of {outcome.node.op_type} are combined with another tensor by "
                f"{mixed.node.op_type}",
                mixed.node,
                outcome.node,
            )


def _record(site: LinearSite, found: Segmentation, view: GraphView) -> SiteSegments:
    tensors = tuple(segment.tensor for segment in found.segments)
    return SiteSegments(
        site=site.name,
        module=site.module,
        side="input",
        pattern="stack" if found.stacked else "concat",
        sizes=tuple(segment.size for segment in found.segments),
        tensors=tensors,
        trivial=_are_waves(tensors, view),
    )


def _are_waves(tensors: Sequence[str], view: GraphView) -> bool:
    """Whether the tensors are the halves of a sinusoidal embedding, padded or not."""
    varying = [tensor for tensor in tensors if view.varies(tensor)]
    return bool(varying) and all(_is_wave(tensor, view) for tensor in varying)


def _is_wave(tensor: str, view: GraphView) -> bool:
    maker = view.wiring.producer.get(tensor)
    while maker is not None and maker.op_type in CASTS:
        maker = view.wiring.producer.get(maker.input[0])
    return maker is not None and maker.op_type in ("Sin", "Cos")
