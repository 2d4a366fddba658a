"""The treatments that are timed, with made-up scales: a kernel's time does not depend on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segquant_trt.bench.costs.shapes import BATCH, Shape
from segquant_trt.models.loop import Array
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    KeepFloat,
    PerStep,
    PerToken,
    RowFactor,
    SegmentPlan,
    Shifted,
    SitePlan,
    Smoothing,
    Static,
    Symmetric,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.records.scores import array_key

_NEAREST = WeightPlan()
_LARGEST = 4.0  # inputs are normally distributed
_SCHEMES: dict[str, ActivationScheme] = {
    "float": KeepFloat(),
    "symmetric": Symmetric(scale=_LARGEST / 127),
    "shifted": Shifted(scale=_LARGEST / 127, zero_shift=-20),
    "dual_scale": DualScale(positive_scale=_LARGEST / 127, negative_scale=_LARGEST / 500),
    "dual_full": DualFull(positive_scale=_LARGEST / 255, negative_scale=_LARGEST / 900),
}
_FACTORS: dict[str, RowFactor] = {
    "static": Static(),
    "per_token": PerToken(),
    "per_step": PerStep(
        edges=tuple(100.0 * i for i in range(10)), factors=tuple(0.5 + 0.1 * i for i in range(10))
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A treatment as words: one (scheme, factor) for the whole input or one for each part."""

    name: str
    segments: tuple[tuple[str, str], ...] = (("symmetric", "static"),)
    smooth: bool = False
    weight: WeightPlan | None = _NEAREST
    channel_outputs: bool = False

    def site_plan(self, shape: Shape, site: str) -> tuple[SitePlan, dict[str, Array]]:
        """The plan of a site of `shape`, and the arrays that it names."""
        arrays: dict[str, Array] = {}
        treatment = self._treatment(shape, arrays)
        channels = None
        if self.channel_outputs:
            spread = np.linspace(2.0, _LARGEST, shape.outputs, dtype=np.float32)
            channels = _stored(arrays, "o", np.stack([-spread, spread]))
        plan = SitePlan(
            site=site,
            module=None,
            treatment=treatment,
            output_range=(-_LARGEST, _LARGEST),
            output_channels=channels,
            macs_per_sample=shape.rows * shape.channels * shape.outputs * shape.kernel**2 // BATCH,
            why="measured",
            considered=(),
        )
        return plan, arrays

    def fits(self, shape: Shape) -> bool:
        """Whether it speaks of as many segments as the shape has parts, or of the whole."""
        return len(self.segments) in (1, len(shape.parts))

    def _treatment(self, shape: Shape, arrays: dict[str, Array]) -> Treatment:
        if self.weight is None:
            return left_in_float(shape.channels)
        sizes = shape.parts if len(self.segments) > 1 else (shape.channels,)
        smoothing = None
        if self.smooth:
            divisor = np.linspace(0.5, 2.0, shape.channels, dtype=np.float32)
            key = _stored(arrays, "d", divisor)
            smoothing = Smoothing(divisor=key, alpha=0.5, segment_exponent=None)
        segments = tuple(
            SegmentPlan(channels=size, activation=_SCHEMES[scheme], factor=_FACTORS[factor])
            for size, (scheme, factor) in zip(sizes, self.segments, strict=True)
        )
        return Treatment(segments=segments, smoothing=smoothing, weight=self.weight)


_STATIC = ("symmetric", "static")
VARIANTS: tuple[Variant, ...] = (
    Variant(name="symmetric"),
    Variant(name="shifted", segments=(("shifted", "static"),)),
    Variant(name="channel-outputs", channel_outputs=True),
    Variant(name="smoothed", smooth=True),
    Variant(name="per-token", segments=(("symmetric", "per_token"),)),
    Variant(name="per-step", segments=(("symmetric", "per_step"),)),
    Variant(name="dual-scale", segments=(("dual_scale", "static"),)),
    Variant(name="dual-full", segments=(("dual_full", "static"),)),
    Variant(name="dual-full-per-token", segments=(("dual_full", "per_token"),)),
    Variant(name="split", segments=(_STATIC, ("shifted", "static"))),
    Variant(name="split-dual", segments=(_STATIC, ("dual_full", "static"))),
    Variant(name="split-per-token", segments=(("symmetric", "per_token"),) * 2),
    Variant(name="w4", weight=WeightPlan(bits=4)),
    Variant(name="w4-only", segments=(("float", "static"),), weight=WeightPlan(bits=4, block=32)),
)


def _stored(arrays: dict[str, Array], prefix: str, array: Array) -> str:
    key = array_key(prefix, array)
    arrays[key] = array
    return key
