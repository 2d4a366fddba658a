"""Plans are carried over to a larger model site by site, with that model's sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.ablation.transfer import transfer_plan
from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    DualFull,
    GraphFacts,
    LinearSite,
    PerToken,
    QuantPlan,
    SegmentPlan,
    Shifted,
    SitePlan,
    SiteSegments,
    Smoothing,
    Symmetric,
    Treatment,
    WeightPlan,
    left_in_float,
)

SYMMETRIC = Symmetric(scale=0.1)


def site(name: str, module: str | None, inputs: int, outputs: int) -> LinearSite:
    return LinearSite(
        name=name,
        op="MatMul",
        module=module,
        role="body",
        activation=f"{name}/x",
        weight=f"{name}/w",
        weight_layout="KN",
        bias=None,
        bias_node=None,
        output=f"{name}/y",
        in_features=inputs,
        out_features=outputs,
        kernel=(),
        groups=1,
        activation_rank=3,
    )


def planned(name: str, treatment: Treatment) -> SitePlan:
    return SitePlan(
        site=name,
        module=None,
        treatment=treatment,
        output_range=(-1.0, 1.0),
        output_channels="o-small" if name == "b1" else None,
        macs_per_sample=1000,
        why="",
        considered=(),
    )


SMALL = GraphFacts(
    onnx_sha256="small",
    sites=(site("a1", "a", 6, 3), site("b1", "b", 5, 2), site("b2", "b", 4, 4)),
)
# Other node names, another order, a Concat of other proportions.
LARGE = GraphFacts(
    onnx_sha256="large",
    sites=(site("q1", "b", 50, 21), site("q2", "b", 40, 40), site("p1", "a", 61, 30)),
    segments=(
        SiteSegments(
            site="p1", module="a", side="input", pattern="concat", sizes=(41, 20), tensors=("", "")
        ),
    ),
)
SPLIT = Treatment(
    segments=(
        SegmentPlan(channels=4, activation=SYMMETRIC),
        SegmentPlan(
            channels=2,
            activation=DualFull(positive_scale=0.1, negative_scale=0.2),
            factor=PerToken(),
        ),
    ),
    weight=WeightPlan(bits=4, codes="w-small", rounding="gptq"),
)
SMOOTHED = Treatment(
    segments=(SegmentPlan(channels=5, activation=Shifted(scale=0.1, zero_shift=3)),),
    smoothing=Smoothing(divisor="d-small", alpha=0.5, segment_exponent=None),
    weight=WeightPlan(),
)
PLAN = QuantPlan(
    target="onnxruntime",
    preset="auto",
    onnx_sha256="small",
    facts_sha256="f",
    calibration_sha256="c",
    sites=(planned("b2", left_in_float(4)), planned("a1", SPLIT), planned("b1", SMOOTHED)),
)


def test_treatments_follow_the_module_and_take_the_large_models_sizes() -> None:
    moved, arrays = transfer_plan(PLAN, SMALL, LARGE)
    by_site = {site.site: site for site in moved.sites}
    assert moved.onnx_sha256 == "large"
    assert [site.site for site in moved.sites] == ["q1", "q2", "p1"]
    assert by_site["q2"].treatment == left_in_float(40)
    split = by_site["p1"].treatment
    assert [part.channels for part in split.segments] == [41, 20]
    assert split.label == "split(symmetric+dual_full/per_token)/w4"
    assert by_site["p1"].macs_per_sample == round(1000 * 61 * 30 / (6 * 3))
    smoothing = by_site["q1"].treatment.smoothing
    assert smoothing is not None
    assert arrays[smoothing.divisor].shape == (50,)
    assert (arrays[smoothing.divisor] > 0).all()
    channels = by_site["q1"].output_channels
    assert channels is not None
    low, high = arrays[channels]
    assert low.shape == (21,)
    assert (low < high).all()


def test_without_facts_of_the_segments_their_sizes_are_scaled() -> None:
    moved, _ = transfer_plan(PLAN, SMALL, replace(LARGE, segments=()))
    sizes = [part.channels for part in moved.sites[2].treatment.segments]
    assert sum(sizes) == 61
    assert sizes == [40, 21]


def test_models_of_different_depth_are_refused() -> None:
    deeper = replace(LARGE, sites=(*LARGE.sites, site("c1", "c", 4, 4)))
    with pytest.raises(SegQuantError, match=r"c1.*no counterpart in the small model"):
        transfer_plan(PLAN, SMALL, deeper)
    with pytest.raises(SegQuantError, match="no counterpart in the large model"):
        transfer_plan(PLAN, SMALL, replace(LARGE, sites=LARGE.sites[:2]))
