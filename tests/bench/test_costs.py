"""The fit finds the prices that cases were made from, whatever a call costs beside its sites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segquant_trt.bench.costs.fit import Case, EmptyCall, Timing, fitted, timing
from segquant_trt.bench.costs.interleaved import Ratio
from segquant_trt.bench.costs.shapes import SHAPES, Shape
from segquant_trt.bench.costs.variants import VARIANTS, Variant
from segquant_trt.pipeline.timed_sites import price_ms
from segquant_trt.records import Treatment, WeightPlan
from segquant_trt.records.costs import CostLine, CostTable

PRICES = {
    "linear": {"call": 2000.0, "float_mac": 0.01, "integer_mac": 0.004, "code": 0.3, "add": 0.2},
    "convolution": {"call": 3000.0, "float_mac": 0.02, "integer_mac": 0.006, "output": 0.7},
}
TABLE = CostTable(
    target="onnxruntime",
    hardware="made up",
    threads=1,
    versions={},
    batch=2,
    median_error=0.0,
    lines=tuple(
        CostLine(op=op, term=term, nanoseconds=price)  # type: ignore[arg-type]
        for op, prices in PRICES.items()
        for term, price in prices.items()
    ),
)
EVEN = Ratio(median=1.0, low=1.0, high=1.0)


def case(shape: Shape, name: str, treatment: Treatment | None, beside_ms: float) -> Case:
    """A site that takes what `TABLE` says, in a call that takes `beside_ms` more."""
    float_site = Variant(name="float", weight=None).site_plan(shape, "site")[0].treatment
    cost = price_ms(TABLE, treatment or float_site, shape) + beside_ms
    return Case(
        target="onnxruntime",
        shape=shape,
        variant=name,
        treatment=treatment,
        label=name,
        kernel="made up",
        runs=200,
        median_ms=2.0 * cost,  # others disturbed it; only the quiet runs are to be priced
        quiet_ms=cost,
        over_float=EVEN,
        over_symmetric=EVEN,
    )


def cases(beside_ms: float) -> list[Case]:
    found = []
    for shape in SHAPES:
        found.append(case(shape, "float", None, beside_ms))
        for variant in VARIANTS:
            if variant.fits(shape):
                treatment = variant.site_plan(shape, "site")[0].treatment
                found.append(case(shape, variant.name, treatment, beside_ms))
    return found


def timed(quiet_ms: float) -> Timing:
    return Timing(runs=500, median_ms=3.0 * quiet_ms, quiet_ms=quiet_ms)


def fit(made: list[Case], empty_ms: float, *, slower: float = 1.0) -> CostTable:
    """`slower`: than when the sites were timed, the machine was as the empty call was."""
    site = next(item for item in made if item.treatment is None)
    empty = EmptyCall(
        empty=timed(slower * empty_ms), shape=site.shape, site=timed(slower * site.quiet_ms)
    )
    return fitted(
        made, empty, target="onnxruntime", threads=2, versions={"runtime": "1"}, price=price_ms
    )


def prices(table: CostTable) -> dict[tuple[str, str], float]:
    return {(line.op, line.term): line.nanoseconds for line in table.lines}


@pytest.mark.parametrize("beside_ms", [0.0, 0.066, 1.7])
def test_the_fit_finds_the_prices(beside_ms: float) -> None:
    table = fit(cases(beside_ms), beside_ms)
    assert table.median_error < 1e-6
    assert (table.threads, table.versions) == (2, {"runtime": "1"})
    found = prices(table)
    for op, wanted in PRICES.items():
        for term, price in wanted.items():
            assert found[op, term] == pytest.approx(price, rel=1e-3)


def test_a_machine_that_has_slowed_down_since_is_the_same_machine() -> None:
    made = cases(0.066)
    then, now = prices(fit(made, 0.066)), prices(fit(made, 0.066, slower=1.25))
    assert now == pytest.approx(then, rel=1e-6)


def test_a_call_that_is_not_told_apart_is_charged_to_every_site() -> None:
    """What the subtraction is for: 66 microseconds of a session, times the sites of a model."""
    charged = prices(fit(cases(0.066), 0.0))
    told = prices(fit(cases(0.066), 0.066))
    assert charged["linear", "call"] > 20.0 * told["linear", "call"]


def test_a_site_that_is_no_slower_than_nothing_gets_no_negative_price() -> None:
    free = [replace(item, quiet_ms=0.05) for item in cases(0.0)]
    assert all(price >= 0.0 for price in prices(fit(free, 0.06)).values())


def test_whole_sites_behind_a_concat_are_not_priced() -> None:
    made = cases(0.0)
    slow = [
        replace(item, quiet_ms=9.0 * item.quiet_ms)
        if len(item.shape.parts) == 2 and "split" not in item.variant
        else item
        for item in made
    ]
    assert any(before != after for before, after in zip(made, slow, strict=True))
    assert prices(fit(slow, 0.0)) == prices(fit(made, 0.0))


def test_figures_of_a_call() -> None:
    found = timing(np.array([3.0, 1.0, 2.0, 5.0, 4.0]) * 1e-3)
    assert (found.runs, found.median_ms) == (5, pytest.approx(3.0))
    assert found.quiet_ms == pytest.approx(1.4)


def test_a_variant_for_two_parts_does_not_fit_three() -> None:
    split = next(variant for variant in VARIANTS if len(variant.segments) == 2)
    assert not split.fits(Shape(op="linear", rows=2, parts=(1, 2, 3), outputs=1))
    assert Variant(name="w4", weight=WeightPlan(bits=4)).fits(
        Shape(op="linear", rows=2, parts=(1, 2, 3), outputs=1)
    )
