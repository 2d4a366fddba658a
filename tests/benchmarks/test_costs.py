"""The fit finds the prices that cases were made from; one-site graphs are what they say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation.costs import SHAPES, VARIANTS, fitted
from benchmarks.ablation.one_site import Shape, Variant, one_site
from segquant_trt.backends import BACKENDS
from segquant_trt.plan.costs import CostModel
from segquant_trt.plan.costs import Shape as PlannedShape
from segquant_trt.records import Target, Treatment, WeightPlan, left_in_float
from segquant_trt.records.codec import to_plain
from segquant_trt.records.costs import CostLine, CostTable

PRICES = {
    "linear": {"call": 2000.0, "float_mac": 0.01, "integer_mac": 0.004, "code": 0.3, "add": 0.2},
    "convolution": {"call": 3000.0, "float_mac": 0.02, "integer_mac": 0.006, "output": 0.7},
}


def table() -> CostTable:
    return CostTable(
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


def priced(shape: Shape, treatment: Treatment) -> float:
    planned = PlannedShape(
        rows=shape.rows,
        input_rows=shape.rows,
        channels=shape.channels,
        outputs=shape.outputs,
        taps=shape.kernel**2,
        groups=1,
        is_convolution=shape.op == "convolution",
    )
    model = CostModel(table(), "onnxruntime")
    return model.input_ms(treatment, planned) + model.product_ms(treatment, planned)


def test_the_fit_finds_the_prices() -> None:
    rows = []
    for shape in SHAPES:
        kinds = {"float": left_in_float(shape.channels)}
        for variant in VARIANTS:
            if variant.fits(shape):
                kinds[variant.name] = variant.site_plan(shape, "site")[0].treatment
        for name, treatment in kinds.items():
            cost = priced(shape, treatment)
            plain = None if name == "float" else to_plain(treatment)
            rows.append({"shape": asdict(shape), "treatment": plain, "quiet_ms": cost})
    found = fitted(rows, "onnxruntime", threads=2)
    assert found.median_error < 1e-6
    prices = {(line.op, line.term): line.nanoseconds for line in found.lines}
    for op, wanted in PRICES.items():
        for term, price in wanted.items():
            assert prices[op, term] == pytest.approx(price, rel=1e-3)  # type: ignore[index]


@pytest.mark.parametrize("target", [backend.target for backend in BACKENDS])
@pytest.mark.parametrize(
    "shape",
    [
        Shape(op="linear", rows=10, parts=(8, 24), outputs=5),
        Shape(op="convolution", rows=32, parts=(8,), outputs=6, kernel=3),
    ],
    ids=lambda shape: shape.label,
)
def test_variants_of_a_site_compute_nearly_the_same(
    shape: Shape, target: Target, tmp_path: Path
) -> None:
    backend = next(backend for backend in BACKENDS if backend.target == target)
    site = one_site(shape, tmp_path)
    (found,) = site.facts.sites
    assert (found.in_features, found.out_features) == (shape.channels, shape.outputs)
    float_path = site.rewritten(Variant(name="float", weight=None), target)
    assert float_path is not None
    expected = backend.open(float_path[0]).run(site.inputs, ["y"])["y"]
    built = 0
    for variant in VARIANTS:
        made = site.rewritten(variant, target) if variant.fits(shape) else None
        if made is None:
            continue
        built += 1
        got = backend.open(made[0]).run(site.inputs, ["y"])["y"]
        assert got.shape == expected.shape
        noise = np.mean((got - expected) ** 2) / np.mean(expected**2)
        # The made-up scales of two polarities clip; this catches a wrong graph, not a coarse code.
        assert noise < 0.2, variant.name
    assert built >= 4


def test_a_variant_for_two_parts_does_not_fit_three() -> None:
    split = next(variant for variant in VARIANTS if len(variant.segments) == 2)
    assert not split.fits(Shape(op="linear", rows=2, parts=(1, 2, 3), outputs=1))
    assert Variant(name="w4", weight=WeightPlan(bits=4)).fits(
        Shape(op="linear", rows=2, parts=(1, 2, 3), outputs=1)
    )
