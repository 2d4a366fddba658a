"""What a matcher answers: a match, or why not and which nodes were in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from onnx import NodeProto

from segquant_trt.graph.wiring import node_name

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """The pattern is there."""

    value: T


@dataclass(frozen=True, slots=True)
class Rejection:
    """The pattern is nearly there.

    `reason` continues the sentence "not taken, because ..."; `nodes` are the culprits' names.
    """

    reason: str
    nodes: tuple[str, ...] = ()


def rejected(reason: str, *nodes: NodeProto) -> Rejection:
    """A rejection that names its culprits."""
    return Rejection(reason, tuple(dict.fromkeys(node_name(node) for node in nodes)))


def names_of(nodes: Sequence[NodeProto]) -> tuple[str, ...]:
    """Names of nodes, without repetitions."""
    return tuple(dict.fromkeys(node_name(node) for node in nodes))
