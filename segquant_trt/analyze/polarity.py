"""Inputs that are the output of an activation which treats the signs differently.

The activation is looked for behind whatever leaves values as they are: casts, reshapes,
transpositions, slices, splits, nearest upsampling, padding, dropout, products with a positive
number; and in each segment of a Concat.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from segquant_trt.analyze import input_segments
from segquant_trt.analyze.activations import activation_of
from segquant_trt.analyze.subject import Findings, Subject, near_miss
from segquant_trt.graph.attributes import has_default_domain, text_attribute
from segquant_trt.graph.axes import Crossed
from segquant_trt.graph.match import Match, Rejection
from segquant_trt.graph.pointwise import CASTS, full_operands
from segquant_trt.graph.pointwise_function import number
from segquant_trt.graph.view import GraphView
from segquant_trt.records import LinearSite, PolarActivation, SitePolarity

_MOVES = CASTS | {
    "DepthToSpace", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Slice", "SpaceToDepth",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_LONGEST = 64

Found = Match[PolarActivation] | Rejection | None


def find(subject: Subject) -> Findings:
    """Polar inputs of all sites."""
    polarity, misses = [], []
    for site in subject.sites:
        for segment, found in matches(site, subject):
            if isinstance(found, Match):
                record = SitePolarity(site=site.name, segment=segment, activation=found.value)
                polarity.append(record)
            elif found is not None:
                misses.append(near_miss(site, "polarity", found))
    return Findings(polarity=tuple(polarity), rejections=tuple(misses))


def matches(site: LinearSite, subject: Subject) -> Iterator[tuple[int | None, Found]]:
    """The activation of the whole input (segment None), or of each of its segments."""
    view, trail = subject.view, subject.trails.of_input(site)
    tokens_joined = trail is not None and isinstance(trail.outcome, Crossed)
    whole = polar_source(site.activation, view, through_joins=tokens_joined)
    if whole is not None:
        yield None, whole
        return
    for found in input_segments.matches(site, subject):
        if isinstance(found, Match):
            for index, segment in enumerate(found.value.segments):
                if segment.keeps_values:
                    yield index, polar_source(segment.tensor, view, through_joins=True)


def polar_source(tensor: str, view: GraphView, *, through_joins: bool) -> Found:
    """The activation whose values `tensor` holds, perhaps moved.

    Through a Concat only where asked, and where all that it joins agree: operands that make up
    the contraction axis are segments and have each their own.
    """
    for _ in range(_LONGEST):
        found = activation_of(tensor, view)
        if found is not None:
            return found
        node = view.wiring.producer.get(tensor)
        if node is not None and node.op_type == "Concat" and through_joins:
            return _shared([polar_source(name, view, through_joins=True) for name in node.input])
        source = None if node is None else _unchanged_source(node, view)
        if source is None:
            return None
        tensor = source
    return None


def _unchanged_source(node: NodeProto, view: GraphView) -> str | None:
    """The operand whose values the node passes on."""
    if not has_default_domain(node):
        return None
    if node.op_type == "SequenceAt":
        maker = view.wiring.producer.get(node.input[0])
        splits = maker is not None and maker.op_type == "SplitToSequence"
        return maker.input[0] if splits and maker is not None else None
    if node.op_type in ("Resize", "Upsample"):
        return node.input[0] if text_attribute(node, "mode", "nearest") == "nearest" else None
    if node.op_type in ("Mul", "Div"):
        return _positively_scaled(node, view)
    return node.input[0] if node.op_type in _MOVES else None


def _positively_scaled(node: NodeProto, view: GraphView) -> str | None:
    full = full_operands(node, view)
    if len(full) != 1 or (node.input[0] != full[0] and node.op_type == "Div"):
        return None
    other = node.input[1] if node.input[0] == full[0] else node.input[0]
    factor = None if view.varies(other) else number(other, view)
    return full[0] if factor is not None and factor > 0 else None


def _shared(found: list[Found]) -> Found:
    """What all parts agree on."""
    first = found[0] if found else None
    return first if isinstance(first, Match) and all(part == first for part in found) else None
