"""Carry a plan from a small model to a large one of the same architecture, site by site.

Speed depends on treatments and shapes, not on the values of scales: what a plan made for a zoo
model would cost at full size can so be measured without weights or data of that size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loop import Array
from segquant_trt.records import (
    GraphFacts,
    LinearSite,
    QuantPlan,
    SegmentPlan,
    SitePlan,
    Smoothing,
    Treatment,
    left_in_float,
)
from segquant_trt.records.scores import array_key

_Place = tuple[str, int]


def transfer_plan(
    plan: QuantPlan, small: GraphFacts, large: GraphFacts
) -> tuple[QuantPlan, dict[str, Array]]:
    """The plan for the large model's sites, and the arrays that it names.

    Sites correspond by module (and order within it); treatments stay what they are. Sizes of
    segments are the large model's own where its facts have as many, else scaled. Divisors and
    output ranges are made up; optimised weight codes become weights rounded to nearest, which run
    alike. `macs_per_sample` counts as many rows as the small model has.

    Args:
        plan: made for `small`.
        small, large: facts of the two graphs.

    Raises:
        SegQuantError: a site of either model has no counterpart.
    """
    planned = {site.site: site for site in plan.sites}
    places = _places(small.sites)
    arrays: dict[str, Array] = {}
    sites = []
    for place, site in _places(large.sites).items():
        origin = places.pop(place, None)
        if origin is None:
            raise _unmatched(site, "small")
        sites.append(_transferred(planned[origin.name], origin, site, large, arrays))
    for site in places.values():
        raise _unmatched(site, "large")
    moved = replace(
        plan,
        onnx_sha256=large.onnx_sha256,
        facts_sha256="",
        calibration_sha256="",
        scores_sha256=None,
        prediction=None,
        sites=tuple(sites),
    )
    return moved, arrays


def float_plan(plan: QuantPlan) -> QuantPlan:
    """The same plan with every site in float."""
    return replace(
        plan,
        sites=tuple(
            replace(
                site,
                treatment=left_in_float(sum(part.channels for part in site.treatment.segments)),
                output_range=None,
                output_channels=None,
            )
            for site in plan.sites
        ),
    )


def _places(sites: Sequence[LinearSite]) -> dict[_Place, LinearSite]:
    seen: Counter[str] = Counter()
    found: dict[_Place, LinearSite] = {}
    for site in sites:
        scope = site.module or site.name
        found[scope, seen[scope]] = site
        seen[scope] += 1
    return found


def _transferred(
    planned: SitePlan,
    small: LinearSite,
    large: LinearSite,
    facts: GraphFacts,
    arrays: dict[str, Array],
) -> SitePlan:
    growth = large.in_features * large.out_features / (small.in_features * small.out_features)
    channels = planned.output_channels
    if channels is not None:
        spread = np.linspace(0.5, 1.0, large.out_features, dtype=np.float32)
        channels = _stored(arrays, "o", np.stack([-spread, spread]))
    return replace(
        planned,
        site=large.name,
        module=large.module,
        treatment=_treatment(planned.treatment, small, large, facts, arrays),
        output_channels=channels,
        macs_per_sample=round(planned.macs_per_sample * growth),
        considered=(),
    )


def _treatment(
    treatment: Treatment,
    small: LinearSite,
    large: LinearSite,
    facts: GraphFacts,
    arrays: dict[str, Array],
) -> Treatment:
    sizes = _segment_sizes([part.channels for part in treatment.segments], small, large, facts)
    segments = tuple(
        _scaled(part, size) for part, size in zip(treatment.segments, sizes, strict=True)
    )
    smoothing = treatment.smoothing
    if smoothing is not None:
        divisor = np.linspace(0.5, 2.0, large.in_features, dtype=np.float32)
        smoothing = Smoothing(
            divisor=_stored(arrays, "d", divisor),
            alpha=smoothing.alpha,
            segment_exponent=smoothing.segment_exponent,
        )
    weight = treatment.weight
    if weight is not None:
        weight = replace(weight, codes=None, rounding="nearest", scale_method="absmax")
    return Treatment(segments=segments, smoothing=smoothing, weight=weight)


def _scaled(part: SegmentPlan, channels: int) -> SegmentPlan:
    return replace(part, channels=channels)


def _segment_sizes(
    sizes: Sequence[int], small: LinearSite, large: LinearSite, facts: GraphFacts
) -> list[int]:
    if len(sizes) == 1:
        return [large.in_features]
    for found in facts.segments:
        own = found.site == large.name and found.side == "input"
        if own and len(found.sizes) == len(sizes):
            return list(found.sizes)
    ends = np.cumsum(sizes) * large.in_features // small.in_features
    return [int(size) for size in np.diff(ends, prepend=0)]


def _stored(arrays: dict[str, Array], prefix: str, array: Array) -> str:
    key = array_key(prefix, array)
    arrays[key] = array
    return key


def _unmatched(site: LinearSite, other: str) -> SegQuantError:
    return SegQuantError(
        f"site '{site.name}' of module '{site.module}' has no counterpart in the {other} model",
        hint="both must be exports of the same architecture with equally many layers",
    )
