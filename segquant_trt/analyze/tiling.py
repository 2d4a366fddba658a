"""Intervals that tile a range, nested ones refined to their leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import NodeProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The channels from `low` up to `high`, as `tensor`; empty when nobody reads them."""

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

    Of parts with one span the first counts. Channels that nobody reads become parts without a
    tensor: exporters drop a slice whose reader is dead, as modulation of a last block. None when
    parts overlap, or fewer than two are read.
    """
    inside = [part for part in parts if low <= part.low < part.high <= high]
    inside = [part for part in inside if part.span != (low, high)]
    largest: list[Part] = []
    for part in sorted(inside, key=lambda part: (part.low, -part.high)):
        if largest and part.high <= largest[-1].high:
            continue  # nested in the one before, or another name for it
        if largest and part.low < largest[-1].high:
            return None
        largest.append(part)
    if not largest:
        return None
    leaves: list[Part] = []
    for part in _without_gaps(largest, low, high):
        leaves.extend(tiled(inside, part.low, part.high) or (part,))
    return tuple(leaves) if sum(bool(part.tensor) for part in leaves) > 1 else None


def _without_gaps(parts: Sequence[Part], low: int, high: int) -> list[Part]:
    """The parts with unread ones between; of the parts' own size where all have one size."""
    sizes = {part.high - part.low for part in parts}
    each = sizes.pop() if len(sizes) == 1 else high - low
    filled: list[Part] = []
    position = low
    for part in (*parts, None):
        end = high if part is None else part.low
        step = each if (end - position) % each == 0 else end - position
        while position < end:
            node = parts[0].node
            filled.append(Part(low=position, high=position + step, tensor="", node=node))
            position += step
        if part is not None:
            filled.append(part)
            position = part.high
    return filled


def describe_gap(parts: Sequence[Part], low: int, high: int) -> str:
    """Why the parts do not tile the range."""
    position = low
    for start, end in sorted({part.span for part in parts}):
        if start < position < end:
            return f"the parts overlap at channel {start}"
        if start > position:
            return f"no part has the channels {position} to {start - 1}"
        position = end
    return f"no part has the channels {position} to {high - 1}"
