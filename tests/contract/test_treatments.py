"""Every treatment on every backend: the numbers of the reference, in integers.

Weights use all codes, inputs sit near the middle of the scheme's codes after their divisor and
factor, so that no order of roundings can move a code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from segquant_trt.backends import BACKENDS, Backend
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    GraphFacts,
    KeepFloat,
    PerStep,
    PerToken,
    RowFactor,
    SegmentPlan,
    Shifted,
    Smoothing,
    Static,
    Symmetric,
    Treatment,
    WeightPlan,
)
from segquant_trt.records.scores import array_key
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import output_encoding, planes, quantize_weight, site_output
from tests.small_graphs import (
    Array,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
    treated,
)

FLOAT32_ROUNDING = 2e-6
backends = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.target)

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


def run(
    folder: Path, backend: Backend, model: Path, case: Case, feeds: dict[str, Array], **site: Any
) -> Array:
    """The output of a graph whose sites are all treated as `case` says."""
    facts = facts_of(model)
    plan = plan_of(facts, backend.target, lambda _: KeepFloat())
    sites = tuple(replace(own, treatment=case.treatment, **site) for own in plan.sites)
    return execute(folder, backend, model, facts, replace(plan, sites=sites), case, feeds)


def execute(
    folder: Path, backend: Backend, model: Path, facts: GraphFacts, plan: Any, case: Case,
    feeds: dict[str, Array],
) -> Array:  # fmt: skip
    out = folder / "quantized.onnx"
    rewrite(model, model.parent, facts, plan, out, arrays=case.arrays, timestep="timestep")
    if case.treatment.is_integer:
        names = [site.name for site in facts.sites]
        proofs = backend.integer_sites(out, names, example=feeds)
        assert {name: proof.kernel for name, proof in proofs.items() if not proof.integer} == {}
    return backend.open(out, threads=1).run(feeds)["y"]


def assert_close(found: Array, wanted: Array, tolerance: float = FLOAT32_ROUNDING) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def linear(
    folder: Path, lead: Sequence[int], weight: Array, bias: Array | None, *, gemm: bool, rank: int
) -> Path:
    nodes = linear_nodes("fc", "x", "y", bias=bias is not None, stored=True, gemm=gemm)
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    weights = {"fc.weight": weight} | ({} if bias is None else {"fc.bias": bias})
    dims = [f"axis{i}" for i in range(rank - 1)]
    inputs = {"x": [*dims, weight.shape[1]], "timestep": ["axis0"]}
    return save_graph(folder / "model.onnx", nodes, inputs, ["y", "unused"], weights)


@backends
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", [*WHOLE, *FURTHER])
def test_linear(tmp_path: Path, backend: Backend, name: str, layout: str) -> None:
    given, lead = {**WHOLE, **FURTHER}[name], LAYOUTS[layout]
    weight = full_range_weight((24, CHANNELS), 1)
    bias = np.random.default_rng(2).standard_normal(24).astype(np.float32)
    with_bias = None if layout == "rank 4" else bias
    model = linear(
        tmp_path, lead, weight, with_bias, gemm=layout == "gemm", rank=len(lead) + 1
    )
    timestep = np.array([-3.0, 250.0, 999.0, 499.9, 0.0, 700.0][: lead[0]], dtype=np.float32)
    x = inputs_of(given, lead, timestep, 3)
    found = run(tmp_path, backend, model, given, {"x": x, "timestep": timestep})
    rows = x.reshape(-1, CHANNELS)
    steps = np.repeat(timestep, len(rows) // len(timestep))
    wanted = site_output(rows, weight, given.treatment, given.arrays, with_bias, steps)
    assert_close(found, wanted.reshape(*lead, 24))


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


def offered(backend: Backend, name: str, kernel: int, groups: int) -> bool:
    two = "dual" in name or "split" in name
    allowed = not two or not backend.placement.requantize_conv_output
    plain = groups == 1 or not ("split" in name or name == "smoothed")
    return allowed and plain and (name != "per_token" or kernel == 1)


CONVOLUTION_CASES = [
    pytest.param(backend, shape, name, id=f"{backend.target}-{shape}-{name}")
    for backend in BACKENDS
    for shape, given in CONVOLUTIONS.items()
    for name in ON_CONVOLUTIONS
    if offered(backend, name, given["kernel"], given.get("groups", 1))
]


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


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("backend", "shape", "name"), CONVOLUTION_CASES)
def test_convolution(tmp_path: Path, backend: Backend, shape: str, name: str, bias: bool) -> None:
    given = {"stride": 1, "groups": 1, "outputs": 24, **CONVOLUTIONS[shape]}
    treated_so, kernel = ON_CONVOLUTIONS[name], given["kernel"]
    dims = (given["outputs"], CHANNELS // given["groups"], kernel, kernel)
    weight = full_range_weight(dims, 4)
    shift = np.random.default_rng(5).standard_normal(given["outputs"]).astype(np.float32)
    model = convolution(
        tmp_path, weight, shift if bias else None, stride=given["stride"], groups=given["groups"]
    )
    timestep = np.array([499.0, 500.0], dtype=np.float32)
    x = np.moveaxis(inputs_of(treated_so, (2, 7, 6), timestep, 6), 3, 1).copy()
    wanted = convolved(x, weight, treated_so, timestep, given["stride"], given["groups"])
    factor = row_factors(x, treated_so, timestep)
    wanted_bias = shift[:, None, None] if bias else np.float32(0.0)
    late = not isinstance(treated_so.treatment.segments[0].factor, Static)
    coded = wanted / factor if late else wanted + wanted_bias
    span = (float(coded.min()), float(coded.max()))
    feeds = {"x": x, "timestep": timestep}
    found = run(tmp_path, backend, model, treated_so, feeds, output_range=span)
    if backend.placement.requantize_conv_output:
        step = output_encoding(*span).scale * (factor if late else np.float32(1.0))
        unit = 0.0  # of the int32 bias
        if bias and not late:
            coarsest = np.abs(weight).max() / (2 ** (treated_so.treatment.weight.bits - 1) - 1)
            unit = UNIT * coarsest
        assert (np.abs(found - wanted - wanted_bias) <= step * (0.5 + 1e-3) + unit / 2).all()
    else:
        assert_close(found, wanted + wanted_bias)


def row_factors(x: Array, case: Case, timestep: Array) -> Array:
    """[B, 1, H, W] or [B, 1, 1, 1] of a whole site."""
    factor = case.treatment.segments[0].factor
    if isinstance(factor, PerToken):
        return np.abs(x).max(axis=1, keepdims=True)
    if isinstance(factor, Static):
        return np.ones((len(x), 1, 1, 1), dtype=np.float32)
    index = np.clip(np.searchsorted(factor.edges, timestep, "right") - 1, 0, None)
    return np.array(factor.factors, dtype=np.float32)[index].reshape(-1, 1, 1, 1)
