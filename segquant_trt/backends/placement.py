"""What a target can run and where it wants its Q/DQ pairs, as data: `rewrite` emits accordingly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from segquant_trt.records import (
    KeepFloat,
    LinearSite,
    PerStep,
    PerToken,
    SegmentPlan,
    SitePlan,
    Static,
    Treatment,
)

DualLowering = Literal["planes", "rows"]
FloatType = Literal["float32", "float16"]
_TWO_POLARITIES = ("dual_scale", "dual_full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A target's abilities and the rules of its emission.

    `schemes`, `linear_factors`, `convolution_factors`: kinds that it has integer kernels for; a
    factor per token is for linears, and for 1x1 convolutions. `split_convolutions`,
    `dual_convolutions`: convolutions may be sums of products. `mixed_segments`: a split site may
    keep some segments in float. `weight_bits`: of integer products; `weight_only_bits`: of linears
    with float activations, in blocks or not.

    `requantize_conv_output`: a Q/DQ pair follows every quantised convolution;
    `output_channels`: that pair may have one scale per output channel. `lift_linear_bias`: the
    bias of a linear is stored as `[1, 1, N]`. `dual_lowering`: two polarities are two products
    with the same weight, or one product with twice the rows. `seg_linear_function`: linears that
    are split or coded in two polarities are calls of the ONNX function `segquant::SegLinear`.
    `input_channels`: what is coded with a scale per channel may be decoded with one scale for all,
    which divides channels that do not lie last for nothing. `signed_codes`: all codes are int8 with
    zero point 0; what zero stands for is subtracted before, and the products get it back.
    `scalar_weight_scales`: weights are decoded with one scale, and products multiplied by what each
    channel's own is of it. `float_type`: of everything that is not coded.
    """

    schemes: tuple[str, ...]
    linear_factors: tuple[str, ...]
    convolution_factors: tuple[str, ...]
    split_convolutions: bool
    dual_convolutions: bool
    mixed_segments: bool
    weight_bits: tuple[int, ...]
    weight_only_bits: tuple[int, ...]
    requantize_conv_output: bool
    output_channels: bool
    lift_linear_bias: bool
    dual_lowering: DualLowering = "planes"
    seg_linear_function: bool = False
    input_channels: bool = False
    signed_codes: bool = False
    scalar_weight_scales: bool = False
    float_type: FloatType = "float32"

    def lacks(self, site: LinearSite, plan: SitePlan) -> str | None:
        """What `plan` asks for at `site` that this target does not have, or None."""
        treatment = plan.treatment
        if treatment.weight is None:
            return self._float_site(treatment)
        if site.has_coded_weight:
            return "codes for a weight that is quantised already"
        wanted = sum(part.channels for part in treatment.segments)
        if wanted != site.in_features:
            return f"segments of {wanted} channels for an input of {site.in_features}"
        lacking = [
            self._weight(site, treatment),
            self._segments(site, treatment.segments, smoothed=treatment.smoothing is not None),
            *(self._segment(site, part) for part in treatment.segments),
            self._output(site, plan),
        ]
        return next((text for text in lacking if text is not None), None)

    @staticmethod
    def _float_site(treatment: Treatment) -> str | None:
        if any(not isinstance(part.activation, KeepFloat) for part in treatment.segments):
            return "quantised activations with a float weight (its weight entry is null)"
        return None

    def _weight(self, site: LinearSite, treatment: Treatment) -> str | None:
        plan = treatment.weight
        assert plan is not None
        if all(isinstance(part.activation, KeepFloat) for part in treatment.segments):
            if site.op == "Conv" or plan.bits not in self.weight_only_bits:
                return f"{plan.bits}-bit weights with float activations"
            return None
        if plan.bits not in self.weight_bits:
            return f"{plan.bits}-bit weights"
        if plan.block is not None:
            return "weights in blocks with quantised activations"
        return None

    def _segments(
        self, site: LinearSite, segments: tuple[SegmentPlan, ...], *, smoothed: bool
    ) -> str | None:
        if len(segments) == 1:
            return "smoothed grouped convolutions" if smoothed and site.groups > 1 else None
        if site.op == "Conv" and not (self.split_convolutions and site.groups == 1):
            return "split convolutions" if site.groups == 1 else "split grouped convolutions"
        kept = sum(isinstance(part.activation, KeepFloat) for part in segments)
        if 0 < kept < len(segments) and not self.mixed_segments:
            return "sites with both coded and float segments"
        return None

    def _segment(self, site: LinearSite, part: SegmentPlan) -> str | None:
        kind, factor = part.activation.kind, part.factor.kind
        if isinstance(part.activation, KeepFloat):
            return None if isinstance(part.factor, Static) else f"{factor} factors of float values"
        if kind not in self.schemes:
            return kind
        if site.op != "Conv":
            if isinstance(part.factor, PerStep) and site.activation_rank is None:
                return "per_step factors of inputs of unknown rank"
            return None if factor in self.linear_factors else f"{factor} factors of linears"
        if kind in _TWO_POLARITIES and not self.dual_convolutions:
            return f"{kind} convolutions"
        if factor not in self.convolution_factors:
            return f"{factor} factors of convolutions"
        if isinstance(part.factor, PerToken) and any(length > 1 for length in site.kernel):
            return "per_token factors of convolutions with more than one tap"
        return None

    def _output(self, site: LinearSite, plan: SitePlan) -> str | None:
        if site.op != "Conv" or not self.requantize_conv_output:
            return None
        if plan.output_channels is not None and self.output_channels:
            return None
        if plan.output_range is None:
            return "convolutions without output_range"
        return None


LITERAL = Placement(
    schemes=("symmetric", "shifted", "dual_scale", "dual_full"),
    linear_factors=("static", "per_token", "per_step"),
    convolution_factors=("static", "per_token", "per_step"),
    split_convolutions=True,
    dual_convolutions=True,
    mixed_segments=True,
    weight_bits=(4, 8),
    weight_only_bits=(4, 8),
    requantize_conv_output=False,
    output_channels=False,
    lift_linear_bias=False,
)
"""Every treatment that uint8 codes express, for graphs that are executed as written."""
