"""Which divisors cost nothing: tried on the graph that the target would get, before any is chosen.

A plan weighs smoothing by its price, and a divisor that folds into what computes the tensor has
none. Whether it does is a matter of the graph alone, so every divisor is tried at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.backends import backend_for
from segquant_trt.backends.placement import Placement
from segquant_trt.graph.remove_unused import RemoveUnused
from segquant_trt.records import (
    FreeDivisors,
    GraphFacts,
    LinearSite,
    QuantPlan,
    SegmentPlan,
    SitePlan,
    Smoothing,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
)
from segquant_trt.rewrite.fold_divisors import FoldDivisors
from segquant_trt.rewrite.quantize_sites import OPSET, QuantizeSites

_TWO = np.float32(2.0)
_SPAN = np.array([[-1.0], [1.0]], dtype=np.float32)


def foldable(
    model: onnx.ModelProto,
    folder: Path,
    facts: GraphFacts,
    target: Target,
    kept: Collection[str] = (),
) -> FreeDivisors:
    """The activations whose divisors need no node of their own, on this target.

    Args:
        model: the float graph, which is left as it is.
        folder: where its external data is; weights are not read.
        facts: of this graph.
        target: whose form of the graph counts.
        kept: sites that stay in float: they read a tensor as it is, so nothing folds there.
    """
    placement = backend_for(target).placement
    shared = {site.activation for site in facts.sites if site.name in kept}
    sites = [site for site in facts.sites if site.activation not in shared]
    chosen = [planned for site in sites if (planned := _smoothed(site, placement)) is not None]
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not chosen or opset < OPSET:
        return FreeDivisors()
    plan = QuantPlan(
        target=target,
        preset="auto",
        onnx_sha256=facts.onnx_sha256,
        facts_sha256="",
        calibration_sha256="",
        scores_sha256=None,
        prediction=None,
        sites=tuple(chosen),
    )
    trial = onnx.ModelProto()
    trial.CopyFrom(model)
    quantized = QuantizeSites(facts, plan, placement, _arrays(sites), None, folder)
    quantized.run(trial)
    RemoveUnused().run(trial)
    divided = {
        node.output[0]: node.input[0]
        for node in trial.graph.node
        if node.output[0] in quantized.smoothed
    }
    coders = placement.input_channels
    folding = FoldDivisors(quantized.smoothed, quantized.data, folder, coders=coders)
    folding.run(trial)
    codes = frozenset(divided[name] for name in folding.coded)
    return FreeDivisors(
        producers=frozenset(divided[name] for name in folding.folded) - codes, codes=codes
    )


def _smoothed(site: LinearSite, placement: Placement) -> SitePlan | None:
    """The plainest plan of a site with a divisor; None where the target has none like it."""
    smoothing = Smoothing(divisor=_key(site), alpha=0.5, segment_exponent=None)
    whole = SegmentPlan(channels=site.in_features, activation=Symmetric(scale=1.0))
    by_channel = site.op == "Conv" and placement.output_channels
    plan = SitePlan(
        site=site.name,
        module=site.module,
        treatment=Treatment(segments=(whole,), smoothing=smoothing, weight=WeightPlan()),
        output_range=(-1.0, 1.0),
        output_channels=_ranges_key(site) if by_channel else None,
        macs_per_sample=0,
        why="",
        considered=(),
    )
    return plan if placement.lacks(site, plan) is None else None


def _arrays(sites: Iterable[LinearSite]) -> dict[str, npt.NDArray[np.generic]]:
    """Divisors and ranges of outputs by key; no channel's is 1, which any part would take."""
    found: dict[str, npt.NDArray[np.generic]] = {}
    for site in sites:
        found[_key(site)] = np.full(site.in_features, _TWO)
        found[_ranges_key(site)] = np.tile(_SPAN, site.out_features)
    return found


def _key(site: LinearSite) -> str:
    return f"d-{site.in_features}"


def _ranges_key(site: LinearSite) -> str:
    return f"o-{site.out_features}"
