"""Made-up facts, scores and cost tables: what planning is decided by, figures chosen by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from segquant_trt.plan import Digests, PlanRequest, make_plan
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    GraphFacts,
    KeepFloat,
    LinearSite,
    PerStep,
    PerToken,
    QuantPlan,
    RowFactor,
    SegmentPlan,
    Shifted,
    SitePlan,
    SitePolarity,
    SiteRole,
    SiteSegments,
    Smoothing,
    Static,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
)
from segquant_trt.records.costs import CostLine, CostTable, CostTerm
from segquant_trt.records.scores import OptionScore, Scores, SiteScore

EDGES = (0.0, 500.0)
TERMS: tuple[CostTerm, ...] = get_args(CostTerm)
SCHEMES: dict[str, ActivationScheme] = {
    "symmetric": Symmetric(scale=0.02),
    "shifted": Shifted(scale=0.01, zero_shift=40),
    "dual_scale": DualScale(positive_scale=0.02, negative_scale=0.001),
    "dual_full": DualFull(positive_scale=0.01, negative_scale=0.0005),
    "float": KeepFloat(),
}
FACTORS: dict[str, RowFactor] = {
    "static": Static(),
    "per_token": PerToken(),
    "per_step": PerStep(edges=EDGES, factors=(1.5, 2.5)),
}
NEAREST = WeightPlan(scale_method="absmax")
SEARCHED = WeightPlan(scale_method="mse", codes="w-1")
OPTIMISED = WeightPlan(rounding="gptq", scale_method="mse", codes="w-2")


def site(
    name: str,
    role: SiteRole = "body",
    *,
    op: Literal["MatMul", "Conv"] = "MatMul",
    inputs: int = 20,
    outputs: int = 10,
    kernel: tuple[int, ...] = (),
    groups: int = 1,
    activation: str | None = None,
) -> LinearSite:
    return LinearSite(
        name=name,
        op=op,
        module=f"module.{name}",
        role=role,
        activation=activation or f"{name}/x",
        weight=f"{name}.weight",
        weight_layout="NCHW" if op == "Conv" else "NK",
        bias=None,
        bias_node=None,
        output=f"{name}/y",
        in_features=inputs,
        out_features=outputs,
        kernel=kernel,
        groups=groups,
        activation_rank=4 if op == "Conv" else 3,
    )


def treatment(
    *kinds: str,
    factor: str = "static",
    sizes: Sequence[int] = (8, 12),
    smooth: bool = False,
    weight: WeightPlan = NEAREST,
) -> Treatment:
    """One scheme for all of 20 channels, or one per segment of `sizes`."""
    widths = sizes if len(kinds) > 1 else (sum(sizes),)
    return Treatment(
        segments=tuple(
            SegmentPlan(
                channels=width,
                activation=SCHEMES[kind],
                factor=Static() if kind == "float" else FACTORS[factor],
            )
            for kind, width in zip(kinds, widths, strict=True)
        ),
        smoothing=Smoothing(divisor="d-1", alpha=0.5, segment_exponent=None) if smooth else None,
        weight=weight,
    )


def option(treated: Treatment, noise: float, sqnr_db: float | None = 30.0) -> OptionScore:
    """With as much noise in all bins."""
    return OptionScore(treatment=treated, noise=(noise,) * len(EDGES), sqnr_db=sqnr_db)


def score(wanted: LinearSite, *options: OptionScore, rows: int = 3, **given) -> SiteScore:
    fields = {
        "site": wanted.name,
        "group": wanted.activation,
        "rows_per_sample": rows,
        "amplification": "backward",
        "output_range": (-2.0, 3.0),
        "output_channels": f"o-{wanted.name}",
        "range_noise": (0.0,) * len(EDGES),
        "channels_noise": (0.0,) * len(EDGES),
        "options": options,
    }
    return SiteScore(**(fields | given))


def scores_of(*found: SiteScore) -> Scores:
    return Scores(
        onnx_sha256="m",
        facts_sha256="f",
        calibration_sha256="c",
        bin_edges=EDGES,
        sites=found,
    )


def facts_of(
    *sites: LinearSite, segments: Sequence[SiteSegments] = (), polarity: Sequence[SitePolarity] = ()
) -> GraphFacts:
    return GraphFacts(
        onnx_sha256="m", sites=sites, segments=tuple(segments), polarity=tuple(polarity)
    )


def concat(name: str, *sizes: int, **given) -> SiteSegments:
    fields = {"module": None, "side": "input", "pattern": "concat"}
    tensors = tuple(f"{name}/part{i}" for i in range(len(sizes)))
    return SiteSegments(site=name, sizes=sizes, tensors=tensors, **(fields | given))


def table(target: Target = "onnxruntime", **nanoseconds: float) -> CostTable:
    """The same prices for linears and convolutions; what is not named costs nothing."""
    lines = [
        CostLine(op=op, term=term, nanoseconds=price)
        for op in ("linear", "convolution")
        for term, price in nanoseconds.items()
    ]
    return CostTable(
        target=target,
        hardware="made up",
        threads=2,
        versions={},
        batch=2,
        median_error=0.0,
        lines=tuple(lines),
    )


PRICES = {
    "call": 1000.0, "float_mac": 2.0, "integer_mac": 1.0, "weight_only_mac": 2.0, "code": 0.5,
    "divide": 2.0, "row_factor": 3.0, "step_factor": 1.0, "row_scale": 1.0, "add": 1.0,
    "output": 0.5,
}  # fmt: skip
DIGESTS = Digests(facts="f", calibration="c", scores="s")


def plan(facts: GraphFacts, scores: Scores, costs: CostTable | None = None, **asked) -> QuantPlan:
    """For ONNX Runtime unless told otherwise; nothing may be left in float but what is kept."""
    request = PlanRequest(**({"target": "onnxruntime", "float_share": 0.0} | asked))
    costs = table(request.target, **PRICES) if costs is None else costs
    return make_plan(facts, scores, costs, request, DIGESTS)


def labels(made: QuantPlan) -> list[str]:
    """Of all sites, with the way that weights are rounded."""
    return [label_of(planned) for planned in made.sites]


def label_of(planned: SitePlan) -> str:
    weight = planned.treatment.weight
    searched = weight is not None and weight.rounding == "nearest" and weight.scale_method == "mse"
    return planned.treatment.label + ("/searched" if searched else "")


def of_bits(treated: Treatment, bits: Literal[4, 8]) -> Treatment:
    assert treated.weight is not None
    return replace(treated, weight=replace(treated.weight, bits=bits))
