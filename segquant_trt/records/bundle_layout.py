"""Names of a bundle's files, and the digest that guards the manifest itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segquant_trt.records.files import digest_of

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PLAN = "plan.yaml"
WEIGHTS = "weights.bin"
DATA_FILES = (MODEL, PLAN, WEIGHTS)

_SELF = "manifest"


def manifest_digest(plain: Mapping[str, Any]) -> str:
    """sha256 of a manifest's canonical JSON without its own entry in `provenance`."""
    provenance = {key: value for key, value in plain["provenance"].items() if key != _SELF}
    return digest_of({**plain, "provenance": provenance})


def sealed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its digest entered as `provenance.manifest`."""
    digest = manifest_digest(plain)
    return {**plain, "provenance": {**plain["provenance"], _SELF: digest}}


def is_sealed(plain: Mapping[str, Any]) -> bool:
    """Whether the manifest carries the digest of its own content."""
    return bool(plain["provenance"].get(_SELF) == manifest_digest(plain))
