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
from segquant_trt.records.scores import OptionScore, OutputScore, array_key
from segquant_trt.schemes.weights import QuantizedWeight
from segquant_trt.score.coding import FactorKind, coding_error, fit_segments
from segquant_trt.score.divisors import best_divisor, own_columns
from segquant_trt.score.group import Double, Float, Group, Member
from segquant_trt.score.outputs import (
    OutputRanges,
    output_factors,
    output_ranges,
    rounding_noise,
)
from segquant_trt.score.rounding import admitted, judges, rounded

_ROUNDED = ("symmetric", "shifted")
_DUALS = ("dual_scale", "dual_full")

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coding:
    """One way to code the input: its segments, and the divisor under which they were fitted.

    `ranges`: how, where not as the search's `method` says.
    """

    segments: tuple[SegmentPlan, ...]
    divisor: Float | None
    smoothing: Smoothing | None
    ranges: RangeMethod | None = None


@dataclass(slots=True, kw_only=True)
class OptionSearch:
    """Scores a group's options; `arrays` collects what their treatments name.

    Args:
        weights: the ways to round weights that are weighed; the first one guides the divisors.
        method: how activation ranges are found.
        weight_only: leave out every option that codes activations.
    """

    weights: Sequence[WeightPlan]
    method: RangeMethod
    weight_only: bool = False
    arrays: Arrays = field(default_factory=dict)

    def options(self, group: Group) -> dict[str, tuple[OptionScore, ...]]:
        """By site, in the same order for all sites of the group."""
        codings = self._codings(group)
        return {m.site.name: self._scored(group, m, codings) for m in group.members}

    def _codings(self, group: Group) -> list[_Coding]:
        untouched = SegmentPlan(channels=group.channels, activation=KeepFloat())
        uncoded = _Coding(segments=(untouched,), divisor=None, smoothing=None)
        if self.weight_only:
            return [uncoded]
        whole = (group.channels,)
        divisors = {None: self._divisor(group, "static")}
        found = [self._coded(group, whole, "static", (kind,), None) for kind in _ROUNDED]
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
                    found += [self._coded(group, whole, factor, (d,), choice) for d in _DUALS]
        if group.admits_split:
            found += self._split(group, factors)
        found += self._unclipped(group, divisors[None])
        return [*found, uncoded]

    def _split(self, group: Group, factors: Sequence[FactorKind]) -> list[_Coding]:
        """Every segment on its own."""
        sizes = group.segments
        kinds: list[tuple[FactorKind, Sequence[str]]] = [
            *((factor, _ROUNDED) for factor in factors),
            ("static", (*_ROUNDED, *_DUALS)),
        ]
        return [self._parts(group, factor, [own] * len(sizes)) for factor, own in kinds]

    def _unclipped(self, group: Group, smoothing: tuple[Float, Smoothing] | None) -> list[_Coding]:
        """Codes of all that calibration saw: those of published methods among them."""
        whole = (group.channels,)
        alike = len(group.polar) == len(group.segments)
        published = [("symmetric",), ("dual_scale",)] if alike else [("symmetric",)]
        wanted: list[tuple[FactorKind, Sequence[str], tuple[Float, Smoothing] | None]] = []
        if self.method != "amax":
            wanted += [("static", own, None) for own in (*published, ("shifted",))]
            if smoothing is not None:
                wanted.append(("static", _ROUNDED, smoothing))
            if group.edges:
                wanted.append(("per_step", _ROUNDED, None))
        if smoothing is not None:
            wanted += [("static", own, smoothing) for own in published]
        found = [self._coded(group, whole, *own, method="amax") for own in wanted]
        if group.admits_split:
            found.append(
                self._parts(group, "static", [("symmetric",)] * len(group.segments), "amax")
            )
        if group.admits_split and group.polar:
            own = [
                ("dual_scale",) if index in group.polar else ("symmetric",)
                for index in range(len(group.segments))
            ]
            found.append(self._parts(group, "static", own, "amax"))
        return found

    def _parts(
        self,
        group: Group,
        factor: FactorKind,
        kinds: Sequence[Sequence[str]],
        method: RangeMethod | None = None,
    ) -> _Coding:
        method = method or self.method
        return _Coding(
            segments=fit_segments(group, None, group.segments, factor, kinds, method),
            divisor=None,
            smoothing=None,
            ranges=None if method == self.method else method,
        )

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
        method: RangeMethod | None = None,
    ) -> _Coding:
        divisor, smoothing = choice if choice is not None else (None, None)
        method = method or self.method
        return _Coding(
            segments=fit_segments(group, divisor, sizes, factor, [kinds] * len(sizes), method),
            divisor=divisor,
            smoothing=smoothing,
            ranges=None if method == self.method else method,
        )

    def _scored(
        self, group: Group, member: Member, codings: Sequence[_Coding]
    ) -> tuple[OptionScore, ...]:
        exact = member.product(member.rows, member.weight)
        signal = float(np.square(exact, dtype=np.float64).mean())
        known: dict[tuple[str, tuple[int, ...], WeightPlan], tuple[WeightPlan, _Error]] = {}
        found = []
        for coding in codings:
            own = self._input_error(member, coding)
            output = self._output(member, coding)
            sizes = tuple(part.channels for part in coding.segments)
            key = coding.smoothing.divisor if coding.smoothing is not None else ""
            for plan in self.weights:
                plan = admitted(plan, member.weight, member.rows)
                if (key, sizes, plan) not in known:
                    known[key, sizes, plan] = self._weight_error(member, coding, plan)
                weight, error = known[key, sizes, plan]
                found.append(_option(coding, weight, own, error, signal, output))
        return tuple(found)

    def _output(self, member: Member, coding: _Coding) -> OutputScore | None:
        """Codes of a convolution's output under a row factor that all of its input shares."""
        if member.site.op != "Conv" or len(coding.segments) > 1:
            return None
        factors = output_factors(member, coding.segments[0].factor, coding.divisor)
        if factors is None:
            return None
        ranges = output_ranges(member, coding.ranges or self.method, factors)
        return self.output_score(member, ranges, factors)

    def output_score(
        self, member: Member, ranges: OutputRanges, factors: Float | None = None
    ) -> OutputScore:
        """The record of what requantising the output in `ranges` costs."""
        key = array_key("o", ranges.channels)
        self.arrays[key] = ranges.channels
        single, own = rounding_noise(member, ranges, factors)
        return OutputScore(
            range=ranges.whole, channels=key, range_noise=_told(single), channels_noise=_told(own)
        )

    def _input_error(self, member: Member, coding: _Coding) -> _Error:
        if isinstance(coding.segments[0].activation, KeepFloat):
            return _Error(noise=np.zeros(len(member.rows)), power=0.0)
        error = coding_error(member.rows, coding.divisor, coding.segments, taps=member.taps)
        output = member.product(error, member.weight)
        return _Error(noise=member.noise(output), power=_power(output))

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
        output = member.product(judges(member.rows), error)
        noise = member.weight_noise(output, plan, divided=own is not None)
        return plan, _Error(noise=noise, power=_power(output))

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


def _power(error: Float) -> float:
    return float(np.square(error, dtype=np.float64).mean())


def _option(
    coding: _Coding,
    weight: WeightPlan,
    first: _Error,
    second: _Error,
    signal: float,
    output: OutputScore | None,
) -> OptionScore:
    power = max(first.power + second.power, signal * 1e-20)
    return OptionScore(
        treatment=Treatment(segments=coding.segments, smoothing=coding.smoothing, weight=weight),
        noise=_told(first.noise + second.noise),
        sqnr_db=round(float(10.0 * np.log10(signal / power)), 2) if signal > 0.0 else None,
        output=output,
        ranges=coding.ranges,
    )


def _told(noise: Double) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in noise)


def _weight_columns(member: Member, coding: _Coding) -> list[slice]:
    """Columns of each segment's own weight codes; all of them, of every group, without segments."""
    if len(coding.segments) == 1:
        return [slice(None)]
    ends = np.cumsum([0, *(part.channels * member.taps for part in coding.segments)])
    return [slice(int(low), int(high)) for low, high in pairwise(ends)]
