"""A graph of one site and its quantised forms, made by the rewrite stage itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from segquant_trt.analyze import analyze
from segquant_trt.backends import backend_for
from segquant_trt.models.loop import Array
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    GraphFacts,
    KeepFloat,
    PerStep,
    PerToken,
    QuantPlan,
    RowFactor,
    SegmentPlan,
    Shifted,
    SitePlan,
    Smoothing,
    Static,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.records.scores import array_key
from segquant_trt.rewrite import rewrite

_OPSET = 21
_BATCH = 2
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
class Shape:
    """A linear `[rows, channels] x [channels, outputs]`, or a convolution of `kernel` x `kernel`.

    `rows` counts the output pixels of a convolution over the batch of two; `parts` are the sizes
    of a Concat in front, one part meaning none.
    """

    op: Literal["linear", "convolution"]
    rows: int
    outputs: int
    parts: tuple[int, ...]
    kernel: int = 1

    @property
    def channels(self) -> int:
        """Input channels."""
        return sum(self.parts)

    @property
    def label(self) -> str:
        """A short name that is a file name too."""
        parts = "+".join(map(str, self.parts))
        kind = self.op if self.op == "linear" else f"conv{self.kernel}"
        return f"{kind}-{self.rows}x{parts}x{self.outputs}"


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
            macs_per_sample=shape.rows * shape.channels * shape.outputs * shape.kernel**2 // _BATCH,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSite:
    """A float graph of one site on disk, its facts and inputs for a call."""

    shape: Shape
    model: Path
    facts: GraphFacts
    inputs: Mapping[str, Array]

    def rewritten(self, variant: Variant, target: Target) -> tuple[Path, SitePlan] | None:
        """The graph with the site treated so, and its plan; None if the target cannot."""
        (site,) = self.facts.sites
        planned, arrays = variant.site_plan(self.shape, site.name)
        if backend_for(target).placement.lacks(site, planned) is not None:
            return None
        plan = QuantPlan(
            target=target,
            preset=variant.name,
            onnx_sha256=self.facts.onnx_sha256,
            facts_sha256="",
            calibration_sha256="",
            sites=(planned,),
        )
        out = self.model.with_name(f"{target}-{variant.name}.onnx")
        rewrite(self.model, self.model.parent, self.facts, plan, out, arrays=arrays)
        return out, planned


def one_site(shape: Shape, folder: Path) -> OneSite:
    """Write the float graph of a site of `shape` with random weights."""
    random = np.random.default_rng(0)
    taps = (shape.kernel, shape.kernel) if shape.op == "convolution" else ()
    weight = random.normal(0.0, 0.02, (shape.outputs, shape.channels, *taps)).astype(np.float32)
    stored = weight if taps else np.ascontiguousarray(weight.T)
    bias = random.normal(0.0, 0.1, shape.outputs).astype(np.float32)
    inputs = _inputs(shape, random)
    names = [name for name in inputs if name != "timestep"]
    nodes: list[NodeProto] = []
    if len(names) > 1:
        axis = 1 if taps else 2
        nodes.append(helper.make_node("Concat", names, ["x"], name="join", axis=axis))
    nodes += _site_nodes(shape, "x" if len(names) > 1 else names[0])
    # Row factors per step read the timestep, so it has to be an input of a valid graph.
    nodes.append(helper.make_node("Identity", ["timestep"], ["unused"], name="unused"))
    model = folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_model(nodes, inputs, {"weight": stored, "bias": bias}, shape), model)
    facts = analyze(model, timestep="timestep")
    return OneSite(shape=shape, model=model, facts=facts, inputs=inputs)


def _inputs(shape: Shape, random: np.random.Generator) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for index, channels in enumerate(shape.parts):
        if shape.op == "linear":
            dims: tuple[int, ...] = (_BATCH, shape.rows // _BATCH, channels)
        else:
            side = isqrt(shape.rows // _BATCH)
            dims = (_BATCH, channels, side, side)
        inputs[f"x{index}"] = random.standard_normal(dims, dtype=np.float32)
    inputs["timestep"] = np.array([100.0, 600.0], dtype=np.float32)
    return inputs


def _site_nodes(shape: Shape, source: str) -> list[NodeProto]:
    if shape.op == "convolution":
        pads = [shape.kernel // 2] * 4
        return [helper.make_node("Conv", [source, "weight", "bias"], ["y"], name="site", pads=pads)]
    return [
        helper.make_node("MatMul", [source, "weight"], ["product"], name="site"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="site/bias"),
    ]


def _model(
    nodes: list[NodeProto],
    inputs: Mapping[str, Array],
    stored: Mapping[str, Array],
    shape: Shape,
) -> onnx.ModelProto:
    kind = TensorProto.FLOAT
    channel_axis = 2 if shape.op == "linear" else 1
    sources = []
    for name, array in inputs.items():
        dims: list[int | str] = [f"axis{i}" for i in range(array.ndim)]
        if name != "timestep":
            dims[channel_axis] = array.shape[channel_axis]
        sources.append(helper.make_tensor_value_info(name, kind, dims))
    rank = 3 if shape.op == "linear" else 4
    results = [
        helper.make_tensor_value_info("y", kind, [f"out{i}" for i in range(rank)]),
        helper.make_tensor_value_info("unused", kind, ["axis0"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "one-site", sources, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)


def _stored(arrays: dict[str, Array], prefix: str, array: Array) -> str:
    key = array_key(prefix, array)
    arrays[key] = array
    return key
