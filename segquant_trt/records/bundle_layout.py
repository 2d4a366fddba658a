"""Names of a bundle's files, and the digest that guards the manifest itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segquant_trt.records.files import digest_of
from segquant_trt.records.frozen_steps import FrozenSteps
from segquant_trt.records.hoisted_prompt import HoistedPrompt

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PLAN = "plan.yaml"
WEIGHTS = "weights.bin"
FALLBACK = "fallback.onnx"
PROMPT = "prompt.onnx"
DATA_FILES = (MODEL, PLAN, WEIGHTS)

_SELF = "manifest"


def data_files(frozen: FrozenSteps | None, hoisted: HoistedPrompt | None) -> tuple[str, ...]:
    """Files of a bundle beside its manifest, sorted."""
    extra = [FALLBACK] if frozen is not None and frozen.fallback else []
    extra += [PROMPT] if hoisted is not None else []
    return tuple(sorted((*extra, *DATA_FILES)))


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
