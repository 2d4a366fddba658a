"""Outputs that are divided along the output channels.

| downstream of the site                                          | segments                  |
|-----------------------------------------------------------------|---------------------------|
| `Split`, `SplitToSequence` and `SequenceAt`                     | one per part              |
| `Slice`s or `Gather`s that tile the channels                    | one per slice             |
| a part divided again                                            | its parts in its place    |
| `Reshape [B, 6, D]`, perhaps `Add(table)`, then any of these    | 6 of size D               |
| parts that interleave, overlap, leave gaps or are computed      | rejected                  |

Token-axis divisions are none of the site's channels and are passed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from onnx import NodeProto

from segquant_trt.analyze.landing import Landing, landings
from segquant_trt.analyze.selections import Selection, Source, selections
from segquant_trt.analyze.subject import Findings, Subject, near_miss
from segquant_trt.analyze.tiling import Part, describe_gap, tiled
from segquant_trt.graph.axes import Place, traced_axis
from segquant_trt.graph.dims import Dim
from segquant_trt.graph.match import Match, Rejection, rejected
from segquant_trt.graph.taint import ignores_values
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import LinearSite, SegmentPattern, SiteSegments


@dataclass(slots=True)
class _Division:
    """All that divides one site's output."""

    parts: dict[tuple[Source, str], list[Part]] = field(default_factory=lambda: defaultdict(list))
    landings: list[Landing] = field(default_factory=list)
    misses: list[Rejection] = field(default_factory=list)

    @property
    def all_parts(self) -> list[Part]:
        return [part for parts in self.parts.values() for part in parts]


def find(subject: Subject) -> Findings:
    """Divided outputs of all sites."""
    divisions = _divisions(subject)
    segments, misses = [], []
    for site in subject.sites:
        division = divisions.get(site.name)
        if division is None:
            continue
        for found in matches(site, division, subject.view.wiring):
            if isinstance(found, Match):
                segments.append(found.value)
            else:
                misses.append(near_miss(site, "split", found))
    return Findings(segments=tuple(segments), rejections=tuple(misses))


def matches(
    site: LinearSite, division: _Division, wiring: Wiring
) -> Iterator[Match[SiteSegments] | Rejection]:
    """The segments of one site's output, and the near misses around it."""
    yield from dict.fromkeys(division.misses)
    parts = division.all_parts
    if not parts:
        return
    found = _families(division, site.out_features)
    for leaves in found:
        yield Match(_record(site, leaves, division))
    if not found:
        reason = describe_gap(parts, 0, site.out_features)
        yield rejected(reason, *(part.node for part in parts))
        return
    readers = _whole_readers(division, wiring)
    if readers:
        kinds = ", ".join(sorted({reader.op_type for reader in readers}))
        yield rejected(f"what is divided is also read whole (by {kinds})", *readers)


def _families(division: _Division, width: int) -> list[tuple[Part, ...]]:
    """Tilings of the output: the common one of all divisions, else each division's own."""
    common = tiled(division.all_parts, 0, width)
    if common is not None:
        return [common]
    own = (tiled(parts, 0, width) for parts in division.parts.values())
    by_sizes = {tuple(part.span for part in leaves): leaves for leaves in own if leaves}
    return list(by_sizes.values())


def _divisions(subject: Subject) -> dict[str, _Division]:
    view = subject.view
    outputs = {site.output: site for site in subject.sites}
    divisions: dict[str, _Division] = defaultdict(_Division)
    for source, found in selections(view).items():
        shape = view.shapes.of(source.tensor)
        assert shape is not None
        taken = [part.value for part in found if isinstance(part, Match)]
        length = _length(shape[source.axis], taken)
        if length is None:
            continue  # output channels are counted by the weight; this axis is another
        misses = [part for part in found if isinstance(part, Rejection)]
        dims = (*shape[: source.axis], length, *shape[source.axis + 1 :])
        place = Place(source.tensor, traced_axis(dims, source.axis))
        for landing in landings(place, outputs, view):
            division = divisions[landing.site.name]
            if isinstance(landing, Landing):
                division.misses.extend(misses)
                division.landings.append(landing)
                for selection in taken:
                    division.parts[source, _divider(selection)].append(_part(landing, selection))
            else:
                nodes = tuple(selection.node for selection in taken[:1])
                culprits = rejected(landing.rejection.reason, *nodes).nodes
                division.misses.append(
                    Rejection(landing.rejection.reason, (*culprits, *landing.rejection.nodes))
                )
    return divisions


def _length(dim: Dim, taken: Sequence[Selection]) -> int | None:
    """The length of a divided axis: as inferred, else what a Split of known sizes says."""
    if isinstance(dim, int):
        return dim
    ends = [part.start + part.size for part in taken if part.node.op_type == "Split"]
    return max(ends, default=None)


def _divider(selection: Selection) -> str:
    """What a selection belongs to: its own Split, or the slices of one tensor together."""
    whole = selection.node.op_type in ("Split", "SplitToSequence")
    return selection.node.output[0] if whole else ""


def _part(landing: Landing, selection: Selection) -> Part:
    low = landing.base + landing.unit * selection.start
    return Part(
        low=low,
        high=low + landing.unit * selection.size,
        tensor=selection.tensor,
        node=selection.node,
    )


def _record(site: LinearSite, leaves: Sequence[Part], division: _Division) -> SiteSegments:
    return SiteSegments(
        site=site.name,
        module=site.module,
        side="output",
        pattern=_pattern(leaves, division),
        sizes=tuple(part.high - part.low for part in leaves),
        tensors=tuple(part.tensor for part in leaves),
    )


def _pattern(leaves: Sequence[Part], division: _Division) -> SegmentPattern:
    if any(landing.unit > 1 for landing in division.landings):
        return "reshape_split"
    cut = all(part.node.op_type in ("Slice", "Gather") for part in leaves)
    return "slice" if cut else "split"


def _whole_readers(division: _Division, wiring: Wiring) -> list[NodeProto]:
    """Nodes that read what is divided, and are neither a division nor on the way to one."""
    known = {part.node.output[0] for part in division.all_parts}
    known |= {node.output[0] for landing in division.landings for node in landing.nodes}
    readers: dict[str, NodeProto] = {}
    for name in (name for landing in division.landings for name in landing.tensors):
        for reader in wiring.consumers.get(name, []):
            if reader.output[0] not in known and not ignores_values(reader):
                readers.setdefault(reader.output[0], reader)
    return list(readers.values())
