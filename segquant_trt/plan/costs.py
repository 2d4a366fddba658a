"""Milliseconds of a group of sites under a treatment, from a cost table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    KeepFloat,
    LinearSite,
    PerStep,
    PerToken,
    SegmentPlan,
    Static,
    Target,
    Treatment,
)
from segquant_trt.records.costs import CostTable, CostTerm
from segquant_trt.records.scores import SiteScore

_TWO_PLANES = ("dual_scale", "dual_full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One site's `[M, K] x [K, N]` as `taps` shifted products; `rows` is M of one call.

    `input_rows` are the rows that are read: more than M where strides leave some out.
    """

    rows: float
    input_rows: float
    channels: float
    outputs: float
    taps: int
    groups: int
    is_convolution: bool

    @property
    def macs(self) -> float:
        """Multiplications and additions of one product."""
        return self.rows * self.channels * self.outputs * self.taps / self.groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Plan for a larger model of the same architecture: sizes are multiplied before costs."""

    rows: float = 1.0
    width: float = 1.0


def shape_of(site: LinearSite, score: SiteScore, batch: int, scaling: Scaling) -> Shape:
    """The shape that one call computes."""
    rows, read = score.rows_per_sample, score.inputs_per_sample
    return Shape(
        rows=rows * batch * scaling.rows,
        input_rows=(rows if read is None else read) * batch * scaling.rows,
        channels=site.in_features * scaling.width,
        outputs=site.out_features * scaling.width,
        taps=prod(site.kernel),
        groups=site.groups,
        is_convolution=site.op == "Conv",
    )


class CostModel:
    """Sums of a table's lines.

    Raises:
        SegQuantError: the table is of another target.
    """

    def __init__(self, table: CostTable, target: Target) -> None:
        if table.target != target:
            raise SegQuantError(
                f"the cost table is of the target '{table.target}', the plan for '{target}'",
                hint="leave --costs out, or give a table of this target",
            )
        self._lines: Mapping[tuple[bool, str], float] = {
            (line.op == "convolution", line.term): line.nanoseconds * 1e-6 for line in table.lines
        }

    def input_ms(self, treatment: Treatment, shape: Shape, *, folded: bool = False) -> float:
        """Preparing the input, once for all sites of a group.

        `folded`: what computes the input takes its divisor, which then costs nothing.
        """
        units: dict[CostTerm, float] = defaultdict(float)
        elements = shape.input_rows * shape.channels
        if treatment.smoothing is not None and not folded:
            units["divide"] += elements
        for part in treatment.segments:
            share = elements * part.channels / sum(s.channels for s in treatment.segments)
            units["code"] += share * _planes(part)
            if isinstance(part.factor, PerToken):
                units["row_factor"] += share
            elif isinstance(part.factor, PerStep):
                units["step_factor"] += share
        return self._sum(units, shape)

    def product_ms(self, treatment: Treatment, shape: Shape) -> float:
        """The products of one site, and what is done to their outputs."""
        units: dict[CostTerm, float] = defaultdict(float)
        outputs = shape.rows * shape.outputs
        units["output"] += outputs
        if treatment.weight is None:
            units["call"] += 1
            units["float_mac"] += shape.macs
            return self._sum(units, shape)
        products = 0
        for part in treatment.segments:
            share = shape.macs * part.channels / sum(s.channels for s in treatment.segments)
            coded = not isinstance(part.activation, KeepFloat)
            planes = _planes(part) if coded else 1
            units["integer_mac" if coded else "weight_only_mac"] += share * planes
            products += planes
            if not isinstance(part.factor, Static):
                units["row_scale"] += outputs
        units["call"] += products
        units["add"] += outputs * (products - 1)
        return self._sum(units, shape)

    def _sum(self, units: Mapping[CostTerm, float], shape: Shape) -> float:
        return sum(
            amount * self._lines.get((shape.is_convolution, term), 0.0)
            for term, amount in units.items()
        )


def _planes(part: SegmentPlan) -> int:
    if isinstance(part.activation, KeepFloat):
        return 0
    return 2 if part.activation.kind in _TWO_PLANES else 1
