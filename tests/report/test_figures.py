from __future__ import annotations

from dataclasses import replace

import pytest

from segquant_trt.records import Prediction
from segquant_trt.report.figures import absent, cards
from tests.report.runs import Run, bare_run, zoo_run


def by_name(run: Run) -> dict[str, tuple[str, str, str]]:
    found = cards(run.manifest, run.quality, run.benchmark, run.plan.prediction)
    return {card.name: (card.value, card.context, card.tone) for card in found}


def test_figures_without_meaning_have_no_card() -> None:
    assert set(by_name(bare_run())) == {
        "SQNR, per step", "Size reduction", "Speed-up", "MACs in integers",
    }  # fmt: skip
    assert len(by_name(zoo_run())) == 8


@pytest.mark.parametrize(
    ("low", "high", "word", "tone"),
    [
        (1.1, 1.3, "faster", "good"),
        (0.8, 0.99, "slower", "warn"),
        (0.97, 1.02, "within noise of float", "plain"),
    ],
)
def test_speed_is_judged_by_its_interval(low: float, high: float, word: str, tone: str) -> None:
    run = zoo_run(4)
    run = replace(run, benchmark=replace(run.benchmark, speedup_low=low, speedup_high=high))
    _, context, found = by_name(run)["Speed-up"]
    assert context.startswith(f"{word}; 95 % interval {low:.2f}")
    assert found == tone


def test_a_model_that_grew_is_marked() -> None:
    run = zoo_run(4)
    run = replace(run, manifest=replace(run.manifest, size_bytes_quantized=11_824_080))
    assert by_name(run)["Size reduction"] == ("0.50×", "5.91 MB → 11.8 MB", "warn")


def test_what_the_plan_expected_stands_beside_what_was_measured() -> None:
    run = zoo_run(4)
    assert (
        "expected"
        not in by_name(replace(run, plan=replace(run.plan, prediction=None)))["SQNR, per step"][1]
    )
    prediction = Prediction(sqnr_db_mean=31.94, latency_ms=None, latency_ms_plain=None)
    _, context, _ = by_name(replace(run, plan=replace(run.plan, prediction=prediction)))[
        "SQNR, per step"
    ]
    assert context.endswith("; 31.9 dB were expected")


def test_figures_that_are_absent_are_named_in_words() -> None:
    quality = replace(
        zoo_run(4).quality,
        not_applicable=("classifier_accuracy", "classifier_accuracy_float", "guidance_scale"),
    )
    assert absent(quality) == ("classifier accuracy", "guidance")
