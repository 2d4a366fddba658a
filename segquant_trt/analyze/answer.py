"""The facts as `analyze --json` answers them."""

from __future__ import annotations

from typing import Any

from segquant_trt.records import GraphFacts, LinearSite, SiteSegments
from segquant_trt.records.codec import to_plain


def as_answer(facts: GraphFacts) -> dict[str, Any]:
    """One JSON-able object; a site is called `site` in every list."""
    return {
        "onnx_sha256": facts.onnx_sha256,
        "timestep": facts.timestep,
        "prompt_inputs": list(facts.prompt_inputs),
        "sites": [_site(site) for site in facts.sites],
        "segments": [_segments(segments) for segments in facts.segments],
        "polarity": [to_plain(polarity) for polarity in facts.polarity],
        "timestep_only": [to_plain(entry) for entry in facts.timestep_only],
        "prompt_constant": list(facts.prompt_constant),
        "prompt_and_timestep": list(facts.prompt_and_timestep),
        "rejections": [to_plain(rejection) for rejection in facts.rejections],
        "notes": list(facts.notes),
    }


def _site(site: LinearSite) -> dict[str, Any]:
    plain = to_plain(site)
    return {"site": plain.pop("name"), **plain}


def _segments(segments: SiteSegments) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(segments)
    tensors = plain.pop("tensors")
    return plain | {"producers" if segments.side == "input" else "consumers": tensors}
