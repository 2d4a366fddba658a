"""Attributes of a node, with defaults."""

from __future__ import annotations

from onnx import AttributeProto, NodeProto

DEFAULT_DOMAINS = ("", "ai.onnx")


def attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """The attribute called `name`, or None."""
    return next((found for found in node.attribute if found.name == name), None)


def int_attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    found = attribute(node, name)
    return default if found is None else int(found.i)


def float_attribute(node: NodeProto, name: str, default: float) -> float:
    """A float attribute."""
    found = attribute(node, name)
    return default if found is None else float(found.f)


def ints_attribute(node: NodeProto, name: str) -> tuple[int, ...] | None:
    """A list of integers, or None when it is not there."""
    found = attribute(node, name)
    return None if found is None else tuple(int(value) for value in found.ints)


def text_attribute(node: NodeProto, name: str, default: str) -> str:
    """A string attribute."""
    found = attribute(node, name)
    return default if found is None else found.s.decode(errors="replace")


def has_default_domain(node: NodeProto) -> bool:
    """Whether the operator is ONNX's own."""
    return node.domain in DEFAULT_DOMAINS
