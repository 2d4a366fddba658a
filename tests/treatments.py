"""Treatments of all kinds for graphs of one site, inputs for them, and the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

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
    Smoothing,
    Static,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
)
from segquant_trt.records.scores import array_key
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import planes, site_output
from tests.small_graphs import Array, facts_of, linear_nodes, plan_of, save_graph

CHANNELS = 40
SIZES = (8, 32)
STEPS = PerStep(edges=(0.0, 250.0, 500.0), factors=(0.5, 2.0, 3.0))
UNIT = 1.0 / 127.0
SCHEMES: dict[str, ActivationScheme] = {
    "symmetric": Symmetric(scale=UNIT),
    "shifted": Shifted(scale=UNIT / 2, zero_shift=-60),
    "dual_scale": DualScale(positive_scale=UNIT, negative_scale=UNIT / 11),
    "dual_full": DualFull(positive_scale=UNIT / 2, negative_scale=UNIT / 19),
}
FACTORS: dict[str, RowFactor] = {"static": Static(), "per_token": PerToken(), "per_step": STEPS}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A treatment, and what it names by key."""

    treatment: Treatment
    arrays: Mapping[str, Array]

    @property
    def divisor(self) -> Array | None:
        smoothing = self.treatment.smoothing
        return None if smoothing is None else self.arrays[smoothing.divisor]


def case(
    *parts: tuple[str, str], smooth: bool = False, channels: int = CHANNELS, **weight: Any
) -> Case:
    sizes = SIZES if len(parts) > 1 else (channels,)
    segments = tuple(
        SegmentPlan(
            channels=size,
            activation=KeepFloat() if kind == "float" else SCHEMES[kind],
            factor=FACTORS[factor],
        )
        for size, (kind, factor) in zip(sizes, parts, strict=True)
    )
    if not smooth:
        treatment = Treatment(segments=segments, weight=WeightPlan(**weight))
        return Case(treatment=treatment, arrays={})
    divisor = np.exp2(np.random.default_rng(8).uniform(-2, 2, channels)).astype(np.float32)
    key = array_key("d", divisor)
    smoothing = Smoothing(divisor=key, alpha=0.5, segment_exponent=None)
    treatment = Treatment(segments=segments, smoothing=smoothing, weight=WeightPlan(**weight))
    return Case(treatment=treatment, arrays={key: divisor})


WHOLE = {f"{kind} {factor}": case((kind, factor)) for kind in SCHEMES for factor in FACTORS}
FURTHER = {
    "smoothed": case(("symmetric", "static"), smooth=True),
    "smoothed per_token": case(("dual_full", "per_token"), smooth=True),
    "split": case(("symmetric", "static"), ("shifted", "static")),
    "split of two polarities": case(("symmetric", "static"), ("dual_full", "static")),
    "split with one factor": case(("symmetric", "per_step"), ("dual_scale", "per_step")),
    "split with factors": case(("shifted", "per_token"), ("symmetric", "per_token")),
    "split with and without": case(("shifted", "static"), ("symmetric", "per_step")),
    "split and smoothed": case(("symmetric", "static"), ("shifted", "static"), smooth=True),
    "four bits": case(("symmetric", "static"), bits=4),
    "four bits, all at once": case(
        ("shifted", "per_token"), ("dual_full", "per_step"), smooth=True, bits=4,
        scale_method="mse",
    ),
}  # fmt: skip
LAYOUTS = {"rank 2": (6,), "rank 3": (2, 5), "rank 4": (2, 3, 4), "gemm": (6,)}


def inputs_of(case: Case, lead: Sequence[int], timestep: Array, seed: int) -> Array:
    """[*lead, K] on the codes of every segment, times factor and divisor; one step per sample."""
    random = np.random.default_rng(seed)
    parts = []
    for part in case.treatment.segments:
        shape = (*lead, part.channels)
        codes = planes(part.activation, site="x")
        values = random.standard_normal(shape) if not codes else near_codes(codes, shape, random)
        if isinstance(part.factor, PerToken):
            values /= np.abs(values).max(axis=-1, keepdims=True)
            values *= np.exp2(random.uniform(-3, 3, (*lead, 1)))
        elif isinstance(part.factor, PerStep):
            index = np.clip(np.searchsorted(part.factor.edges, timestep, "right") - 1, 0, None)
            values *= np.array(part.factor.factors)[index].reshape(-1, *[1] * len(lead))
        parts.append(values)
    x = np.concatenate(parts, axis=-1)
    return (x if case.divisor is None else x * case.divisor).astype(np.float32)


def near_codes(codes: Sequence[Any], shape: Sequence[int], random: Any) -> Array:
    choice = random.integers(0, len(codes), shape)
    found = np.zeros(shape)
    for index, plane in enumerate(codes):
        low = plane.zero_point if plane.polarity == "positive" else 0
        high = plane.zero_point if plane.polarity == "negative" else 255
        code = random.integers(low, high + 1, shape)
        nudge = np.where(code == plane.zero_point, 0.0, random.uniform(-0.4, 0.4, shape))
        values = plane.scale * (code - plane.zero_point + nudge)
        found = np.where(choice == index, values, found)
    return found


def linear(folder: Path, weight: Array, bias: Array | None, *, gemm: bool, rank: int) -> Path:
    nodes = linear_nodes("fc", "x", "y", bias=bias is not None, stored=True, gemm=gemm)
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    weights = {"fc.weight": weight} | ({} if bias is None else {"fc.bias": bias})
    dims = [f"axis{i}" for i in range(rank - 1)]
    inputs = {"x": [*dims, weight.shape[1]], "timestep": ["axis0"]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y", "unused"], weights)


CONVOLUTIONS = {
    "3x3": {"kernel": 3},
    "1x1": {"kernel": 1},
    "strided": {"kernel": 3, "stride": 2},
    "grouped": {"kernel": 3, "groups": 4},
    "depthwise": {"kernel": 3, "groups": CHANNELS, "outputs": CHANNELS},
}
ON_CONVOLUTIONS = {
    "symmetric": case(("symmetric", "static")),
    "per_step": case(("shifted", "per_step")),
    "per_token": case(("symmetric", "per_token")),
    "smoothed": case(("shifted", "static"), smooth=True),
    "four bits": case(("symmetric", "static"), bits=4),
    "dual_scale": case(("dual_scale", "static")),
    "dual_full": case(("dual_full", "static")),
    "dual_full per_step": case(("dual_full", "per_step")),
    "split": case(("symmetric", "static"), ("shifted", "static")),
    "split, two polarities": case(("dual_full", "static"), ("shifted", "per_step")),
}


def patches(x: Array, kernel: int, stride: int) -> Array:
    """[B, C, H, W] as [B, H', W', C, kernel * kernel], zero-padded."""
    half = kernel // 2
    padded = np.pad(x, ((0, 0), (0, 0), (half, half), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(2, 3))
    found = windows[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    return found.reshape(*found.shape[:4], kernel * kernel)


def convolved(
    x: Array, weight: Array, case: Case, timestep: Array, stride: int, groups: int
) -> Array:
    """The reference without bias, [B, N, H', W']."""
    taps = weight.shape[2] * weight.shape[3]
    found = patches(x, weight.shape[2], stride)
    lead, own = found.shape[:3], weight.shape[1]
    steps = np.repeat(timestep, lead[1] * lead[2])
    treatment = case.treatment
    if groups > 1:
        (segment,) = treatment.segments
        treatment = replace(treatment, segments=(replace(segment, channels=own),))
    outputs = []
    for group in range(groups):
        rows = found[..., group * own : (group + 1) * own, :].reshape(-1, own * taps)
        part = weight.reshape(groups, -1, own * taps)[group]
        outputs.append(site_output(rows, part, treatment, case.arrays, None, steps, taps))
    return np.moveaxis(np.concatenate(outputs, axis=1).reshape(*lead, -1), 3, 1)


def convolution(
    folder: Path, weight: Array, bias: Array | None, *, stride: int, groups: int
) -> Path:
    weights = {"conv.weight": weight} | ({} if bias is None else {"conv.bias": bias})
    nodes = [
        helper.make_node(
            "Conv", ["x", *weights], ["y"], name="conv", pads=[weight.shape[2] // 2] * 4,
            strides=[stride] * 2, group=groups,
        ),
        helper.make_node("Identity", ["timestep"], ["unused"], name="unused"),
    ]  # fmt: skip
    inputs = {"x": ["n", weight.shape[1] * groups, "h", "w"], "timestep": ["n"]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y", "unused"], weights)


def row_factors(x: Array, case: Case, timestep: Array) -> Array:
    """[B, 1, H, W] or [B, 1, 1, 1] of a whole site."""
    factor = case.treatment.segments[0].factor
    if isinstance(factor, PerToken):
        return np.abs(x).max(axis=1, keepdims=True)
    if isinstance(factor, Static):
        return np.ones((len(x), 1, 1, 1), dtype=np.float32)
    index = np.clip(np.searchsorted(factor.edges, timestep, "right") - 1, 0, None)
    return np.array(factor.factors, dtype=np.float32)[index].reshape(-1, 1, 1, 1)


def written(folder: Path, model: Path, target: Target, given: Case, **site: Any) -> Path:
    """The rewritten graph with every site treated alike, and changed by `site`."""
    facts = facts_of(model)
    plan = plan_of(facts, target, lambda _: KeepFloat())
    sites = tuple(replace(own, treatment=given.treatment, **site) for own in plan.sites)
    out = folder / "quantized.onnx"
    arrays, plan = given.arrays, replace(plan, sites=sites)
    rewrite(model, model.parent, facts, plan, out, arrays=arrays, timestep="timestep")
    return out
