"""Costs: every term counted by hand, shapes of calls, and sums over a group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segquant_trt.plan.costs import CostModel, Scaling, Shape, shape_of
from segquant_trt.records import FreeDivisors, LinearSite, Treatment, left_in_float
from segquant_trt.records.costs import CostLine
from tests.plan.made_up import (
    TERMS,
    facts_of,
    option,
    plan,
    score,
    scores_of,
    site,
    table,
    treatment,
)

M, C, N = 6, 20, 10  # three rows per sample, two samples


def shape(wanted: LinearSite, scaling: Scaling | None = None, **given) -> Shape:
    return shape_of(wanted, score(wanted, **given), 2, scaling or Scaling())


LINEAR = shape(site("fc"))


def counted(treated: Treatment, own: Shape, part: str) -> dict[str, float]:
    """How many units of each term `part` has: each term alone at a millisecond per unit."""
    found = {}
    for term in TERMS:
        costs = CostModel(table(**{term: 1e6}), "onnxruntime")
        amount = getattr(costs, f"{part}_ms")(treated, own)
        if amount:
            found[term] = pytest.approx(amount)
    return found


INPUTS = {
    "float": (left_in_float(C), {}),
    "weights alone": (treatment("float"), {}),
    "symmetric": (treatment("symmetric"), {"code": M * C}),
    "shifted": (treatment("shifted"), {"code": M * C}),
    "dual_scale": (treatment("dual_scale"), {"code": 2 * M * C}),
    "dual_full per_token": (
        treatment("dual_full", factor="per_token"),
        {"code": 2 * M * C, "row_factor": M * C},
    ),
    "smoothed per_step": (
        treatment("shifted", factor="per_step", smooth=True),
        {"code": M * C, "step_factor": M * C, "divide": M * C},
    ),
    "split": (treatment("symmetric", "shifted"), {"code": M * C}),
    "split, two polarities in one": (
        treatment("symmetric", "dual_full", factor="per_token"),
        {"code": M * 8 + 2 * M * 12, "row_factor": M * C},
    ),
    "split, one in float": (
        treatment("float", "shifted", factor="per_step"),
        {"code": M * 12, "step_factor": M * 12},
    ),
}
PRODUCTS = {
    "float": (left_in_float(C), {"call": 1, "float_mac": M * C * N, "output": M * N}),
    "weights alone": (
        treatment("float"),
        {"call": 1, "weight_only_mac": M * C * N, "output": M * N},
    ),
    "symmetric": (
        treatment("symmetric", smooth=True),
        {"call": 1, "integer_mac": M * C * N, "output": M * N},
    ),
    "dual_full per_token": (
        treatment("dual_full", factor="per_token"),
        {"call": 2, "integer_mac": 2 * M * C * N, "output": M * N, "add": M * N,
         "row_scale": M * N},
    ),
    "per_step": (
        treatment("shifted", factor="per_step"),
        {"call": 1, "integer_mac": M * C * N, "output": M * N, "row_scale": M * N},
    ),
    "split": (
        treatment("symmetric", "shifted"),
        {"call": 2, "integer_mac": M * C * N, "output": M * N, "add": M * N},
    ),
    "split, two polarities in one": (
        treatment("symmetric", "dual_full", factor="per_token"),
        {"call": 3, "integer_mac": M * (8 + 2 * 12) * N, "output": M * N, "add": 2 * M * N,
         "row_scale": 2 * M * N},
    ),
    "split, one in float": (
        treatment("float", "shifted"),
        {"call": 2, "weight_only_mac": M * 8 * N, "integer_mac": M * 12 * N, "output": M * N,
         "add": M * N},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    treated, wanted = INPUTS[name]
    assert counted(treated, LINEAR, "input") == wanted


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    treated, wanted = PRODUCTS[name]
    assert counted(treated, LINEAR, "product") == wanted


@pytest.mark.parametrize(
    ("kernel", "groups", "taps", "share"),
    [((3, 3), 1, 9, 1), ((3, 3), 2, 9, 2), ((1, 1), 1, 1, 1), ((3, 3), 10, 9, 10), ((5,), 1, 5, 1)],
)
def test_convolutions_count_their_taps_and_groups(kernel, groups, taps, share) -> None:
    conv = site("conv", op="Conv", kernel=kernel, groups=groups)
    own = shape(conv)
    assert own.macs == M * C * N * taps / share
    found = counted(treatment("symmetric"), own, "product")
    assert found == {"call": 1, "integer_mac": M * C * N * taps / share, "output": M * N}
    assert counted(treatment("symmetric"), own, "input") == {"code": M * C}


def test_a_strided_convolution_codes_all_that_it_reads() -> None:
    """Stride 2 in two directions: three outputs per sample of twelve pixels."""
    conv = site("conv", op="Conv", kernel=(3, 3))
    own = shape(conv, Scaling(rows=5), inputs_per_sample=12)
    assert own.macs == 5 * M * C * N * 9
    treated = treatment("shifted", factor="per_step", smooth=True)
    read = 5 * 4 * M * C
    assert counted(treated, own, "input") == {"code": read, "step_factor": read, "divide": read}
    assert counted(treated, own, "product") == {
        "call": 1, "integer_mac": own.macs, "output": 5 * M * N, "row_scale": 5 * M * N
    }  # fmt: skip


def test_convolutions_have_prices_of_their_own() -> None:
    lines = (
        CostLine(op="linear", term="call", nanoseconds=2e6),
        CostLine(op="convolution", term="call", nanoseconds=5e6),
    )
    costs = CostModel(replace(table(), lines=lines), "onnxruntime")
    conv = shape(site("conv", op="Conv", kernel=(3, 3)))
    assert costs.product_ms(treatment("symmetric"), LINEAR) == pytest.approx(2.0)
    assert costs.product_ms(treatment("symmetric"), conv) == pytest.approx(5.0)


def test_planning_for_a_larger_model_scales_rows_and_widths() -> None:
    own = shape(site("fc"), Scaling(rows=16, width=12))
    assert (own.rows, own.channels, own.outputs) == (16 * M, 12 * C, 12 * N)
    assert own.macs == 16 * 144 * M * C * N
    found = counted(treatment("symmetric", "dual_scale"), own, "product")
    assert found["integer_mac"] == 16 * 144 * M * (8 + 24) * N


def test_one_coding_serves_all_sites_of_a_group() -> None:
    sites = [site(name, activation="x") for name in "ab"]
    scores = scores_of(*(score(s, option(treatment("symmetric"), 1e-3)) for s in sites))
    made = plan(facts_of(*sites), scores, table(code=1e6))
    assert made.prediction.latency_ms == M * C
    apart = [site(name) for name in "ab"]
    scores = scores_of(*(score(s, option(treatment("symmetric"), 1e-3)) for s in apart))
    assert plan(facts_of(*apart), scores, table(code=1e6)).prediction.latency_ms == 2 * M * C


def test_sites_that_stay_in_float_are_paid_for_too() -> None:
    sites = [site("a"), site("b", "final")]
    scores = scores_of(*(score(s, option(treatment("symmetric"), 1e-3)) for s in sites))
    made = plan(facts_of(*sites), scores, table(float_mac=1e6, integer_mac=1e3))
    assert made.prediction.latency_ms == pytest.approx(1.001 * M * C * N, rel=1e-3)


def test_a_divisor_that_folds_costs_nothing() -> None:
    sites = [site("a"), site("b")]
    smooth = option(treatment("symmetric", smooth=True), 1e-3)
    scores, prices = scores_of(*(score(s, smooth) for s in sites)), table(divide=1e6)
    one = frozenset((sites[0].activation,))
    known = (FreeDivisors(), FreeDivisors(producers=one), FreeDivisors(codes=one))
    for folded, divided in zip(known, (2, 1, 1), strict=True):
        made = plan(facts_of(*sites), scores, prices, folded=folded)
        assert made.prediction.latency_ms == divided * M * C


@pytest.mark.parametrize("factor", ["per_step", "per_token"])
def test_codes_take_no_divisor_across_a_row_factor(factor: str) -> None:
    own = site("a")
    scores = scores_of(score(own, option(treatment("symmetric", factor=factor, smooth=True), 1e-3)))
    one, prices = frozenset((own.activation,)), table(divide=1e6)
    free = [FreeDivisors(producers=one), FreeDivisors(codes=one), FreeDivisors()]
    made = [plan(facts_of(own), scores, prices, preset="auto", folded=each) for each in free]
    assert [each.prediction.latency_ms for each in made] == [0.0, M * C, M * C]
