"""Every way to treat a group's sites that is worth weighing, with its noise at the output.

Errors of activations and of weights are measured apart, each against the float product, and their
powers added: they are independent to good accuracy, and every pair need not be multiplied out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from segquant_trt.records import KeepFloat, SegmentPlan, Smoothing, Treatment, WeightPlan
from segquant_trt.records.options import RangeMethod
from segquant_trt.records.scores import OptionScore, array_key
from segquant_trt.schemes.weights import QuantizedWeight
from segquant_trt.score.coding import FactorKind, coding_error, fit_segments
from segquant_trt.score.divisors import best_divisor, own_columns
from segquant_trt.score.group import Double, Float, Group, Member
from segquant_trt.score.rounding import judges, rounded

_GPTQ_COLUMNS = 8192  # the Gram matrix of more takes gigabytes, its factor minutes
_ROUNDED = ("symmetric", "shifted")

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coding:
    """One way to code the input: its segments, and the divisor under which they were fitted."""

    segments: tuple[SegmentPlan, ...]
    divisor: Float | None
    smoothing: Smoothing | None


@dataclass(slots=True, kw_only=True)
class OptionSearch:
    """Scores a group's options; `arrays` collects what their treatments name.

    Args:
        weights: the ways to round weights that are weighed; the first one guides the divisors.
        method: how activation ranges are found.
    """

    weights: Sequence[WeightPlan]
    method: RangeMethod
    arrays: Arrays = field(default_factory=dict)

    def options(self, group: Group) -> dict[str, tuple[OptionScore, ...]]:
        """By site, in the same order for all sites of the group."""
        codings = self._codings(group)
        return {m.site.name: self._scored(group, m, codings) for m in group.members}

    def _codings(self, group: Group) -> list[_Coding]:
        whole = (group.channels,)
        divisors = {None: self._divisor(group, "static")}
        found = [self._coded(group, whole, "static", (kind,), None) for kind in _ROUNDED]
        duals: tuple[str, ...] = ("dual_scale", "dual_full")
        factors: list[FactorKind] = ["static"]
        if group.edges:
            factors.append("per_step")
        if group.admits_row_factors:
            factors.append("per_token")
        for factor in factors:
            smoothing = divisors[None] if factor != "per_token" else self._divisor(group, factor)
            plain = factor == "static"
            for choice in (None, smoothing) if smoothing is not None else (None,):
                if not (plain and choice is None):
                    found.append(self._coded(group, whole, factor, _ROUNDED, choice))
                if factor != "per_step":
                    found += [self._coded(group, whole, factor, (d,), choice) for d in duals]
        if divisors[None] is not None:
            # As published: SmoothQuant's divisor with symmetric codes, or DualScale's.
            found.append(self._coded(group, whole, "static", ("symmetric",), divisors[None]))
        if group.admits_split:
            found += self._split(group, factors, duals)
        untouched = SegmentPlan(channels=group.channels, activation=KeepFloat())
        found.append(_Coding(segments=(untouched,), divisor=None, smoothing=None))
        return found

    def _split(
        self, group: Group, factors: Sequence[FactorKind], duals: tuple[str, ...]
    ) -> list[_Coding]:
        """Every segment on its own: rounded, symmetric, DualScale where one polarity prevails."""
        sizes = group.segments
        every = len(sizes)
        published = [
            ("dual_scale",) if index in group.polar else ("symmetric",) for index in range(every)
        ]
        kinds: list[tuple[FactorKind, Sequence[Sequence[str]]]] = [
            *((factor, [_ROUNDED] * every) for factor in factors),
            ("static", [("symmetric",)] * every),
            ("static", [(*_ROUNDED, *duals)] * every),
        ]
        if group.polar:
            kinds.append(("static", published))
        return [
            _Coding(
                segments=fit_segments(group, None, sizes, factor, own, self.method),
                divisor=None,
                smoothing=None,
            )
            for factor, own in kinds
        ]

    def _divisor(self, group: Group, factor: FactorKind) -> tuple[Float, Smoothing] | None:
        choice = best_divisor(group, factor, self.weights[0])
        if choice.is_identity:
            return None
        key = array_key("d", choice.divisor)
        self.arrays[key] = choice.divisor
        return choice.divisor, Smoothing(
            divisor=key, alpha=choice.alpha, segment_exponent=choice.segment_exponent
        )

    def _coded(
        self,
        group: Group,
        sizes: Sequence[int],
        factor: FactorKind,
        kinds: Sequence[str],
        choice: tuple[Float, Smoothing] | None,
    ) -> _Coding:
        divisor, smoothing = choice if choice is not None else (None, None)
        segments = fit_segments(group, divisor, sizes, factor, [kinds] * len(sizes), self.method)
        return _Coding(segments=segments, divisor=divisor, smoothing=smoothing)

    def _scored(
        self, group: Group, member: Member, codings: Sequence[_Coding]
    ) -> tuple[OptionScore, ...]:
        exact = member.product(member.rows, member.weight)
        signal = float(np.square(exact, dtype=np.float64).mean())
        known: dict[tuple[str, tuple[int, ...], WeightPlan], tuple[WeightPlan, _Error]] = {}
        found = []
        for coding in codings:
            own = self._input_error(member, coding)
            sizes = tuple(part.channels for part in coding.segments)
            key = coding.smoothing.divisor if coding.smoothing is not None else ""
            for plan in self.weights:
                if plan.rounding == "gptq" and not _admits_gptq(member):
                    plan = WeightPlan(bits=plan.bits, block=plan.block, scale_method="mse")
                if (key, sizes, plan) not in known:
                    known[key, sizes, plan] = self._weight_error(member, coding, plan)
                weight, error = known[key, sizes, plan]
                found.append(_option(coding, weight, own, error, signal))
        return tuple(found)

    def _input_error(self, member: Member, coding: _Coding) -> _Error:
        if isinstance(coding.segments[0].activation, KeepFloat):
            return _Error(noise=np.zeros(len(member.rows)), power=0.0)
        error = coding_error(member.rows, coding.divisor, coding.segments, taps=member.taps)
        return _measured(member, member.product(error, member.weight))

    def _weight_error(
        self, member: Member, coding: _Coding, plan: WeightPlan
    ) -> tuple[WeightPlan, _Error]:
        """The plan with the key of its codes, and what rounding costs on other rows."""
        repeated = None if coding.divisor is None else np.repeat(coding.divisor, member.taps)
        own = own_columns(member, repeated)
        scaled = member.weight if own is None else member.weight * own
        rows = member.rows if repeated is None else member.rows / repeated
        made = [
            rounded(scaled[:, columns], rows[..., columns], plan)
            for columns in _weight_columns(member, coding)
        ]
        decoded = np.concatenate([part.estimate for part in made], axis=1)
        restored = decoded if own is None else decoded / own
        error = np.asarray(restored - member.weight, dtype=np.float32)
        if plan.rounding != "nearest" or plan.scale_method != "absmax":
            plan = self._stored(plan, [part.codes for part in made])
        return plan, _measured(member, member.product(judges(member.rows), error))

    def _stored(self, plan: WeightPlan, parts: Sequence[QuantizedWeight]) -> WeightPlan:
        codes = np.concatenate([part.codes for part in parts], axis=1)
        scale = np.concatenate([part.scale.reshape(len(codes), -1) for part in parts], axis=1)
        key = array_key("w", codes, scale)
        self.arrays[f"{key}.codes"], self.arrays[f"{key}.scale"] = codes, scale
        return WeightPlan(
            bits=plan.bits,
            block=plan.block,
            rounding=plan.rounding,
            scale_method=plan.scale_method,
            codes=key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Error:
    """Noise at the denoiser's output float64[B], and mean squared error of the site's output."""

    noise: Double
    power: float


def _admits_gptq(member: Member) -> bool:
    """Whether it is affordable, and there are rows to fit and others to judge."""
    columns, rows = int(member.weight.shape[1]), int(member.rows.shape[1])
    return columns <= _GPTQ_COLUMNS and rows > 1


def _measured(member: Member, error: Float) -> _Error:
    return _Error(noise=member.noise(error), power=float(np.square(error, dtype=np.float64).mean()))


def _option(
    coding: _Coding, weight: WeightPlan, first: _Error, second: _Error, signal: float
) -> OptionScore:
    power = max(first.power + second.power, signal * 1e-20)
    return OptionScore(
        treatment=Treatment(segments=coding.segments, smoothing=coding.smoothing, weight=weight),
        noise=tuple(float(f"{value:.6g}") for value in first.noise + second.noise),
        sqnr_db=round(float(10.0 * np.log10(signal / power)), 2) if signal > 0.0 else None,
    )


def _weight_columns(member: Member, coding: _Coding) -> list[slice]:
    """Columns of each segment's own weight codes."""
    if len(coding.segments) == 1:
        return [slice(0, member.weight.shape[1])]
    ends = np.cumsum([0, *(part.channels * member.taps for part in coding.segments)])
    return [slice(int(low), int(high)) for low, high in pairwise(ends)]
