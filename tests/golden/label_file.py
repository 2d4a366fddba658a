"""Hand labels of the families, `labels/<family>.yaml`.

Modules may be written with alternatives, as a shell does: `blocks.{0,1}.norm{1,2}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

FOLDER = Path(__file__).parent / "labels"

Activation = Literal["silu", "gelu", "gelu_tanh", "mish", "geglu", "swiglu", "gated_other"]
Pattern = Literal["concat", "stack", "head_merge", "split", "slice", "reshape_split"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Widths of a module's input or output segments, in order."""

    module: str
    side: Literal["input", "output"]
    sizes: tuple[int, ...]
    pattern: Pattern
    trivial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Polarity:
    """The activation that makes a module's input, or one segment of it."""

    module: str
    segment: int | None
    activation: Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the source of a family says about its linears and convolutions.

    `linears` and `convolutions` count torch modules; `unused` are those that no output reads;
    `functional` maps a module that computes with its children's weights to these children;
    `called_twice` may be two sites or, after a common-subexpression pass, one.
    `ordinary` are the modules about which there is nothing to say.
    """

    timestep: str
    prompt_inputs: tuple[str, ...]
    linears: int
    convolutions: int
    segments: frozenset[Segments]
    polarity: frozenset[Polarity]
    timestep_only: frozenset[str]
    prompt_constant: frozenset[str]
    prompt_and_timestep: frozenset[str]
    ordinary: frozenset[str]
    unused: frozenset[str]
    called_twice: frozenset[str]
    functional: dict[str, tuple[str, ...]]

    @property
    def spoken_of(self) -> frozenset[str]:
        """Modules with a segment, a polarity or a dependence."""
        told = (entry.module for entry in (*self.segments, *self.polarity))
        dependent = self.timestep_only | self.prompt_constant | self.prompt_and_timestep
        return frozenset(told) | dependent

    @property
    def modules(self) -> frozenset[str]:
        """Every module that computes a GEMM or convolution of the graph."""
        return self.spoken_of | self.ordinary


def read_labels(family: str) -> Labels:
    """The labels of `family`; fails on an unknown key and on a module that is named twice."""
    raw = yaml.safe_load((FOLDER / f"{family}.yaml").read_text(encoding="utf-8"))
    return Labels(
        timestep=raw.pop("timestep"),
        prompt_inputs=tuple(raw.pop("prompt_inputs")),
        linears=raw.pop("linears"),
        convolutions=raw.pop("convolutions"),
        segments=frozenset(
            Segments(**entry | {"module": module, "sizes": tuple(entry["sizes"])})
            for entry in raw.pop("segments")
            for module in expand(entry["module"])
        ),
        polarity=frozenset(
            Polarity(**entry | {"module": module})
            for entry in raw.pop("polarity")
            for module in expand(entry["module"])
        ),
        functional={k: tuple(v) for k, v in raw.pop("functional", {}).items()},
        **_module_sets(raw),
    )


def expand(pattern: str) -> list[str]:
    """`a.{b,c.{0,1}}` as `a.b`, `a.c.0`, `a.c.1`."""
    group = re.search(r"\{([^{}]*)\}", pattern)
    if group is None:
        return [pattern]
    before, after = pattern[: group.start()], pattern[group.end() :]
    options = (expand(f"{before}{option}{after}") for option in group[1].split(","))
    return list(dict.fromkeys(name for names in options for name in names))


def _module_sets(raw: dict[str, Any]) -> dict[str, frozenset[str]]:
    sets = {}
    for key, patterns in ({"unused": [], "called_twice": []} | raw).items():
        names = [name for pattern in patterns for name in expand(pattern)]
        twice = {name for name in names if names.count(name) > 1}
        assert not twice, f"{key}: {sorted(twice)} named twice"
        sets[key] = frozenset(names)
    return sets
