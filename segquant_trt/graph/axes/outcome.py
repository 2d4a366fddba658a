"""One step upstream from a tensor whose channels are traced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from onnx import NodeProto

from segquant_trt.graph.axes.layout import Layout


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor, and where the traced channels lie in it."""

    tensor: str
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Through:
    """Each channel comes from one channel of one tensor.

    `keeps_values`: the elements are the same, moved, repeated or left out, never changed.
    """

    place: Place
    nodes: tuple[NodeProto, ...]
    keeps_values: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The channels are those of several tensors one after the other; `sizes` in channels."""

    node: NodeProto
    pieces: tuple[Place, ...]
    sizes: tuple[int, ...]
    stacked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """Several tensors are joined along another axis, such as that of tokens."""

    node: NodeProto
    places: tuple[Place, ...]
    axis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Each channel is computed from the same channel of several tensors."""

    node: NodeProto
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The way ends here: at an input, a constant, or a node that mixes channels.

    `reason` is given where the channels go on but cannot be followed; `beyond` then is where they
    would go on if the whole axis were meant, for those who only ask whose they are.
    """

    node: NodeProto | None
    reason: str | None = None
    beyond: Place | None = None


Outcome: TypeAlias = Through | Joined | Crossed | Mixed | Ended
