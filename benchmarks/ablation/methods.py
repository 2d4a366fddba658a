"""What is compared: our own presets and single features, and other people's quantisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from benchmarks.ablation.baselines import BASELINES
from segquant_trt.records.rules import Rule, Trait

Format = Literal["W8A8", "W4A8", "W4A16"]

FORMATS: dict[Format, Mapping[str, Any]] = {
    "W8A8": {},
    "W4A8": {"weight_bits": 4},
    "W4A16": {"weight_bits": 4, "weight_only": True},
}
"""Fields of CompileOptions that make a format."""

_FEATURES: tuple[Trait, ...] = (
    "dual_scale", "dual_full", "per_token", "per_step", "split", "smoothed", "gptq",
)  # fmt: skip
_ANY_LATENCY = "10x"


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """`segquant-trt compile` with these options, and rules for its planner."""

    options: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """One of `BASELINES`."""

    baseline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of the table."""

    name: str
    how: Own | Theirs
    formats: tuple[Format, ...]


How: TypeAlias = Own | Theirs

_INTEGER: tuple[Format, ...] = ("W8A8", "W4A8")
_ALL: tuple[Format, ...] = ("W8A8", "W4A8", "W4A16")


def _only(feature: Trait) -> Method:
    """Plain static codes, and this feature wherever it helps, whatever it costs."""
    others = tuple(other for other in _FEATURES if other != feature)
    return Method(
        name=f"only-{feature}",
        how=Own(
            options={"preset": "auto", "max_latency": _ANY_LATENCY},
            rules=(Rule(sites="*", forbid=others),),
        ),
        formats=_INTEGER if feature != "gptq" else _ALL,
    )


def _without(feature: Trait) -> Method:
    """The automatic plan, had this feature not been written."""
    rules = (Rule(sites="*", forbid=(feature,)),)
    return Method(
        name=f"auto-without-{feature}",
        how=Own(options={"preset": "auto"}, rules=rules),
        formats=_INTEGER,
    )


METHODS: tuple[Method, ...] = (
    Method(name="plain", how=Own(options={"preset": "plain"}), formats=_ALL),
    Method(
        name="plain-everything",
        how=Own(options={"preset": "plain", "quantize_all": True}),
        formats=_INTEGER,
    ),
    Method(name="seglinear", how=Own(options={"preset": "seglinear"}), formats=_INTEGER),
    Method(name="segquant", how=Own(options={"preset": "segquant"}), formats=_INTEGER),
    Method(name="q-diffusion", how=Own(options={"preset": "q-diffusion"}), formats=_INTEGER),
    Method(name="tfmq", how=Own(options={"preset": "tfmq"}), formats=_INTEGER),
    *(
        Method(
            name=f"auto-{objective}",
            how=Own(options={"preset": "auto", "objective": objective}),
            formats=_ALL,
        )
        for objective in ("speed", "balanced", "quality")
    ),
    Method(
        name="auto-unbounded",
        how=Own(options={"preset": "auto", "max_latency": _ANY_LATENCY}),
        formats=_ALL,
    ),
    *(_only(feature) for feature in _FEATURES),
    *(_without(feature) for feature in _FEATURES),
    *(Method(name=name, how=Theirs(baseline=name), formats=("W8A8",)) for name in BASELINES),
)


def methods_named(names: list[str] | None) -> tuple[Method, ...]:
    """The methods of these names, or all."""
    return tuple(method for method in METHODS if names is None or method.name in names)
