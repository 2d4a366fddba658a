"""The plans that competed, in the report, in `inspect` and in the summary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segquant_trt.records import Contender, Prediction
from segquant_trt.records.codec import write_record
from segquant_trt.records.trials import Trial, Trials
from segquant_trt.report.contenders import contender_rows
from segquant_trt.report.figures import cards
from segquant_trt.report.inspect import describe
from tests.report.runs import SHA, zoo_run

RUN = zoo_run(3)
CONTENDERS = (
    Contender(name="auto", expected_db=47.04, latency_ms=0.69684, measured_db=46.5,
              latent_db=43.1, chosen=True, verdict="did best"),
    Contender(name="tfmq", expected_db=42.98, latency_ms=0.75, verdict="not run: too <dear>"),
    Contender(name="plain", expected_db=42.66, latency_ms=0.6636, latent_db=39.4,
              margin_db=-3.67, margin_stderr_db=0.29, verdict="not chosen"),
    Contender(name="segquant", expected_db=44.9, latency_ms=0.82, latent_db=42.6,
              margin_db=0.5, margin_stderr_db=None, verdict="may not be chosen: too dear"),
)  # fmt: skip
PLAN = replace(RUN.plan, chosen_from=CONTENDERS)


def test_the_chosen_one_leads_and_those_that_did_not_run_come_last() -> None:
    rows = contender_rows(PLAN)
    assert [row.name for row in rows] == ["auto", "segquant", "plain", "tfmq"]
    assert [row.margin for row in rows] == [
        "–", "+0.50 dB", "−3.67 ± 0.29 dB", "–",
    ]  # fmt: skip
    assert rows[0].cost == "0.697 ms"
    assert (rows[2].expected, rows[2].per_step, rows[2].latent) == ("42.7 dB", "–", "39.4 dB")


def test_the_report_has_a_table_of_them_if_any_competed(tmp_path: Path) -> None:
    without = RUN.write(tmp_path / "a.html")
    text = replace(RUN, plan=PLAN).write(tmp_path / "b.html")
    assert "Plans that competed" in text
    assert "Plans that competed" not in without
    assert "too &lt;dear&gt;" in text
    assert text.index("auto ✓") < text.index("may not be chosen")


def test_what_was_expected_stands_beside_what_was_measured() -> None:
    expected = Prediction(
        sqnr_db_mean=32.24, latency_ms=1.0, latency_ms_plain=1.0, latent_sqnr_db=25.36
    )
    found = {
        card.name: card.context
        for card in cards(RUN.manifest, RUN.quality, RUN.benchmark, expected)
    }
    assert "32.2 dB were expected" in found["SQNR, per step"]
    assert "25.4 dB were expected" in found["SQNR, final latent"]
    assert "expected" not in "".join(
        card.context for card in cards(RUN.manifest, RUN.quality, RUN.benchmark, None)
    )


def test_inspect_tells_plans_and_trials(tmp_path: Path) -> None:
    write_record(tmp_path / "plan.yaml", PLAN)
    table = describe(tmp_path / "plan.yaml").as_dict()["tables"]["plans that competed"]
    assert [row["plan"] for row in table] == ["auto", "segquant", "plain", "tfmq"]
    assert table[2]["margin, dB"] == -3.67
    trials = Trials(
        onnx_sha256=SHA,
        scores_sha256=SHA,
        compared="final latents",
        seeds=(0, 1),
        scheduler_steps=20,
        step_gain_db=0.7,
        latent_gain_db=-3.2,
        trials=(
            Trial(name="auto", decisions_sha256=SHA, sqnr_db_mean=43.5, decibels=(40.0, 41.0)),
        ),
    )
    write_record(tmp_path / "trials.yaml", trials)
    told = describe(tmp_path / "trials.yaml").as_dict()
    assert told["kind"] == "trials of plans"
    assert told["properties"]["gain of steps, dB"] == 0.7
    assert told["properties"]["gain of latents, dB"] == -3.2
    assert told["tables"]["plans"][0]["mean, dB"] == 40.5
    assert told["tables"]["plans"][0]["per step, dB"] == 43.5
