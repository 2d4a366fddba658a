"""What is compared: our own presets and single features, and other people's quantisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from benchmarks.ablation.baselines import (
    BASELINES,
    ModelOptInt4,
    NncfInt4,
    OnnxRuntimeNBits,
    OnnxRuntimeStatic,
    codes_as_it_runs,
)
from benchmarks.ablation.full_size import cost_scale
from segquant_trt.records.options import OBJECTIVES
from segquant_trt.records.rules import Rule, Trait

Format = Literal["W8A8", "W4A8", "W4A16", "W8A16"]

FORMATS: dict[Format, Mapping[str, Any]] = {
    "W8A8": {},
    "W4A8": {"weight_bits": 4},
    "W4A16": {"weight_bits": 4, "weight_only": True},
    "W8A16": {},
}
"""Fields of CompileOptions that make a format. Of W8A16 there is only the floor."""

_FEATURES: tuple[Trait, ...] = (
    "dual_scale", "dual_full", "per_token", "per_step", "split", "smoothed", "gptq",
)  # fmt: skip
_PREDICTED = {"preset": "auto", "trials": False}
_ANY_LATENCY = {**_PREDICTED, "max_latency": "10x"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """`segquant-trt compile` with these options, and rules for its planner."""

    options: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def compile_options(self, model: str) -> dict[str, Any]:
        """Keywords of CompileOptions; sites are priced at the size where latency is judged."""
        return {"cost_scale": cost_scale(model), **self.options}


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """One of `BASELINES`."""

    baseline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """INT8 weights (one scale per output channel, to nearest) under float activations."""


How: TypeAlias = Own | Theirs | Floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of the table. Images are `judged` (200 of them) where that is worth the time."""

    name: str
    how: How
    formats: tuple[Format, ...]
    judged: bool = True


_EIGHT_BITS: tuple[Format, ...] = ("W8A8",)
_INTEGER: tuple[Format, ...] = ("W8A8", "W4A8")
_ALL: tuple[Format, ...] = ("W8A8", "W4A8", "W4A16")


def _preset(name: str, *, formats: tuple[Format, ...] = _INTEGER) -> Method:
    return Method(name=name, how=Own(options={"preset": name}), formats=formats)


def _everywhere(preset: str) -> Method:
    """The preset without NVIDIA's exclusions."""
    return Method(
        name=f"{preset}-everything",
        how=Own(options={"preset": preset, "quantize_all": True}),
        formats=_INTEGER,
    )


def _only(*features: Trait) -> Method:
    """Plain codes, and these features wherever they help, whatever they cost.

    With none: what is left of the planner, which may still leave 1.5 % of the work in float, shift
    codes, search weight scales, and give convolutions' outputs a scale per channel.
    """
    others = tuple(other for other in _FEATURES if other not in features)
    of_weights = not features or set(features) & {"smoothed", "gptq"}
    formats = _ALL if "gptq" in features else _INTEGER if of_weights else _EIGHT_BITS
    return Method(
        name=f"only-{'-'.join(features) or 'planner'}",
        how=Own(
            options=_ANY_LATENCY,
            rules=(Rule(sites="*", forbid=others),),
        ),
        formats=formats,
        judged=False,
    )


def _without(*features: Trait) -> Method:
    """The plan predicted best for 1.25 times the latency, had these features not been written."""
    return Method(
        name=f"auto-without-{'-'.join(features) or 'trials'}",
        how=Own(
            options={**_PREDICTED, "objective": "quality"},
            rules=(Rule(sites="*", forbid=features),) if features else (),
        ),
        formats=_EIGHT_BITS,
        judged=False,
    )


_IN_TABLES = (
    "ort-minmax-default", "ort-minmax-excluded", "ort-minmax-linears", "ort-percentile-linears",
    "modelopt-max-default", "modelopt-max-excluded", "modelopt-max-linears",
    "modelopt-entropy-linears",
    "nncf-mixed-default", "nncf-mixed-excluded", "nncf-mixed-linears", "nncf-performance-linears",
    "ort-int4-rtn", "ort-int4-hqq",
    "modelopt-int4-rtn-dq",
    "nncf-int4-rtn", "nncf-int4-awq-scale",
    "ort-int4-minmax-static", "ort-int4-percentile-static",
    "ort-int4-rtn-dynamic", "nncf-int4-rtn-dynamic",
)  # fmt: skip


def _format_of(baseline: str) -> Format:
    found = BASELINES[baseline]
    if isinstance(found, OnnxRuntimeNBits | ModelOptInt4 | NncfInt4):
        return "W4A8" if codes_as_it_runs(baseline) else "W4A16"
    return "W4A8" if isinstance(found, OnnxRuntimeStatic) and found.weight_bits == 4 else "W8A8"


METHODS: tuple[Method, ...] = (
    *(
        Method(name=name, how=Theirs(baseline=name), formats=(_format_of(name),))
        for name in (*_IN_TABLES, *(name for name in BASELINES if name not in _IN_TABLES))
    ),
    _preset("plain", formats=_ALL),
    _everywhere("plain"),
    _preset("seglinear"),
    _preset("segquant"),
    _everywhere("segquant"),
    _preset("q-diffusion"),
    _preset("tfmq"),
    *(
        Method(
            name=f"auto-{objective}",
            how=Own(options={"preset": "auto", "objective": objective}),
            formats=_ALL,
        )
        for objective in OBJECTIVES
    ),
    Method(
        name="auto-1.3x",
        how=Own(options={"preset": "auto", "max_latency": "1.3x"}),
        formats=_EIGHT_BITS,
        judged=False,
    ),
    Method(
        name="auto-unbounded",
        how=Own(options=_ANY_LATENCY),
        formats=_INTEGER,
        judged=False,
    ),
    _only(),
    *(_only(feature) for feature in _FEATURES),
    _without(),
    *(_without(feature) for feature in _FEATURES),
    Method(name="weights-floor", how=Floor(), formats=("W8A16",), judged=False),
)

MATRIX: tuple[str, ...] = tuple(
    method.name
    for method in METHODS
    if not isinstance(method.how, Theirs) or method.how.baseline in _IN_TABLES
)
"""What is run unless methods are named: the histogram calibrations of ONNX Runtime keep every
activation of a call and take minutes, and its GPTQ compensates nothing."""

_BUDGETS = (*OBJECTIVES, "1.3x")
TIMED: tuple[str, ...] = ("plain", "segquant", *(f"auto-{budget}" for budget in _BUDGETS))
"""Whose W8A8 plans are timed at full size, the first being what others are compared to."""


def methods_named(names: list[str] | None) -> tuple[Method, ...]:
    """The methods of these names, or those of `MATRIX`."""
    chosen = MATRIX if names is None else names
    return tuple(method for method in METHODS if method.name in chosen)
