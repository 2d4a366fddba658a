"""Intervals that tile a range, nested ones refined to their leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The channels from `low` up to `high`, as the tensor `tensor`."""

    low: int
    high: int
    tensor: str
    node: NodeProto

    @property
    def span(self) -> tuple[int, int]:
        """The interval."""
        return self.low, self.high


def tiled(parts: Sequence[Part], low: int, high: int) -> tuple[Part, ...] | None:
    """Parts that together are `low` up to `high`, each divided further where others tile it.

    Of parts with one span the first counts. None when the largest of them leave gaps or overlap.
    """
    inside = [part for part in parts if low <= part.low < part.high <= high]
    inside = [part for part in inside if part.span != (low, high)]
    largest: list[Part] = []
    for part in sorted(inside, key=lambda part: (part.low, -part.high)):
        if largest and part.high <= largest[-1].high:
            continue  # nested in the one before, or another name for it
        largest.append(part)
    ends = [low, *(part.high for part in largest)]
    starts = [*(part.low for part in largest), high]
    if len(largest) < 2 or ends != starts:
        return None
    leaves: list[Part] = []
    for part in largest:
        leaves.extend(tiled(inside, part.low, part.high) or (part,))
    return tuple(leaves)


def describe_gap(parts: Sequence[Part], low: int, high: int) -> str:
    """Why the parts do not tile the range."""
    position = low
    for start, end in sorted({part.span for part in parts}):
        if start < position:
            return f"the parts overlap at channel {start}"
        if start > position:
            return f"no part has the channels {position} to {start - 1}"
        position = end
    return f"no part has the channels {position} to {high - 1}"
