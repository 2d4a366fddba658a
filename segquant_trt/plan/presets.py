"""Presets: what each published method would choose, out of the options that were scored.

| preset        | inputs                                                            | weights      |
|---------------|-------------------------------------------------------------------|--------------|
| `plain`       | one scale per tensor, symmetric or shifted                        | nearest      |
| `seglinear`   | symmetric; concatenated inputs split                              | nearest      |
| `segquant`    | SmoothQuant; DualScale after SiLU, GELU; concatenated inputs split | nearest     |
| `q-diffusion` | shifted, over all timesteps; UNet shortcuts split                 | MSE-searched |
| `tfmq`        | one scale per timestep bin                                        | MSE-searched |
| `auto`        | whatever the image needs within the latency that is allowed       | all          |

`seglinear`, `segquant` and `tfmq` cover all that calibration saw, as published; `plain` and
`q-diffusion`, whose ranges are learned, what `--range-method` says.

SegQuant: arXiv 2507.14811; Q-Diffusion: 2302.04304, with AdaRound replaced by searched scales;
TFMQ-DM: 2311.16503, its temporal features being modulation sites, which stay in float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segquant_trt.plan.problem import Option
from segquant_trt.records import KeepFloat, Static, Treatment
from segquant_trt.records.options import RangeMethod, WeightScaleMethod
from segquant_trt.records.scores import OptionScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a preset knows of a group: `segments` of its input, and which come from SiLU or GELU."""

    segments: int
    polar: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """`ranks`: predicates, the first of which that any option satisfies decides.

    `ranges`: how activation ranges are found; None: as the user asked.
    """

    ranks: tuple[Callable[[Treatment, Surroundings], bool], ...]
    weight_scales: WeightScaleMethod
    ranges: RangeMethod | None = None

    def pool(
        self, options: Sequence[tuple[Option, OptionScore]], weight_scales: WeightScaleMethod
    ) -> list[Option]:
        """Those with the preset's weights and ranges, or, where there are none, those with its
        weights; else all of them."""
        rounded = [pair for pair in options if _has_weights(pair[1], weight_scales)]
        exact = [pair for pair in rounded if pair[1].ranges == self.ranges]
        return [option for option, _ in exact or rounded or options]


def is_plain(treatment: Treatment, _: Surroundings) -> bool:
    """One static scale for the whole input."""
    return (
        _static(treatment)
        and len(treatment.segments) == 1
        and treatment.smoothing is None
        and _kinds(treatment) <= {"symmetric", "shifted"}
    )


def _symmetric(treatment: Treatment, _: Surroundings) -> bool:
    return is_plain(treatment, _) and _kinds(treatment) == {"symmetric"}


def _split_symmetric(treatment: Treatment, around: Surroundings) -> bool:
    split = around.segments > 1 and len(treatment.segments) == around.segments
    return split and _static(treatment) and _kinds(treatment) == {"symmetric"}


def _split_published(treatment: Treatment, around: Surroundings) -> bool:
    if around.segments == 1 or len(treatment.segments) != around.segments:
        return False
    wanted = [
        "dual_scale" if index in around.polar else "symmetric" for index in range(around.segments)
    ]
    return _static(treatment) and [part.activation.kind for part in treatment.segments] == wanted


def _dual_scale(treatment: Treatment, around: Surroundings) -> bool:
    polar = len(around.polar) == around.segments
    return polar and _whole(treatment) and _kinds(treatment) == {"dual_scale"}


def _smooth(
    rank: Callable[[Treatment, Surroundings], bool],
) -> Callable[[Treatment, Surroundings], bool]:
    return lambda treatment, around: treatment.smoothing is not None and rank(treatment, around)


def _whole_symmetric(treatment: Treatment, _: Surroundings) -> bool:
    return _whole(treatment) and _kinds(treatment) == {"symmetric"}


def _shifted(treatment: Treatment, around: Surroundings) -> bool:
    return is_plain(treatment, around) and _kinds(treatment) == {"shifted"}


def _split_rounded(treatment: Treatment, around: Surroundings) -> bool:
    split = around.segments > 1 and len(treatment.segments) == around.segments
    return split and _static(treatment) and _kinds(treatment) <= {"symmetric", "shifted"}


def _per_step(treatment: Treatment, _: Surroundings) -> bool:
    every = all(part.factor.kind == "per_step" for part in treatment.segments)
    plain = len(treatment.segments) == 1 and treatment.smoothing is None
    return every and plain and _kinds(treatment) <= {"symmetric", "shifted"}


def _static(treatment: Treatment) -> bool:
    return all(isinstance(part.factor, Static) for part in treatment.segments)


def _whole(treatment: Treatment) -> bool:
    return _static(treatment) and len(treatment.segments) == 1


def _has_weights(scored: OptionScore, weight_scales: WeightScaleMethod) -> bool:
    weight = scored.treatment.weight
    return (
        weight is not None and weight.rounding == "nearest" and weight.scale_method == weight_scales
    )


def _kinds(treatment: Treatment) -> set[str]:
    return {part.activation.kind for part in treatment.segments}


def weight_only(treatment: Treatment) -> bool:
    """Float activations and coded weights."""
    coded = any(not isinstance(part.activation, KeepFloat) for part in treatment.segments)
    return treatment.weight is not None and not coded


RANKED: dict[str, Preset] = {
    "plain": Preset(ranks=(is_plain,), weight_scales="absmax"),
    "seglinear": Preset(
        ranks=(_split_symmetric, _symmetric), weight_scales="absmax", ranges="amax"
    ),
    "segquant": Preset(
        ranks=(
            _split_published,
            _smooth(_dual_scale),
            _dual_scale,
            _smooth(_whole_symmetric),
            _symmetric,
        ),
        weight_scales="absmax",
        ranges="amax",
    ),
    "q-diffusion": Preset(ranks=(_split_rounded, _shifted), weight_scales="mse"),
    "tfmq": Preset(ranks=(_per_step, is_plain), weight_scales="mse", ranges="amax"),
}
