"""What the report and `inspect` tell of temporal features, and of what runs once per prompt."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

from segquant_trt.records import HoistedPrompt
from segquant_trt.records.codec import to_plain
from segquant_trt.records.temporal import TemporalFeature, TemporalStep
from segquant_trt.report.figures import cards
from segquant_trt.report.inspect import describe
from segquant_trt.report.inspect_record import describe_manifest
from tests.report.runs import zoo_run

EXACT = TemporalFeature(
    site="t0/Gemm", module="blocks.0.norm1.linear", depends_on="prompt and timestep", held="table",
    sqnr_db_mean=None, sqnr_db_worst=None, relative_error_mean=0.0, relative_error_worst=0.0,
    steps=(),
)  # fmt: skip
CODED = replace(
    EXACT, site="t1/Gemm", module=None, depends_on="timestep", held="coded", sqnr_db_mean=41.25,
    sqnr_db_worst=33.5, relative_error_mean=0.0091, relative_error_worst=0.021,
    steps=(
        TemporalStep(timestep=981.0, sqnr_db=49.0, relative_error=0.0035),
        TemporalStep(timestep=1.0, sqnr_db=33.5, relative_error=0.021),
    ),
)  # fmt: skip
HOISTED = HoistedPrompt(
    inputs=("text", "pooled"), values=("k", "v", "m"), by_step=("m",), row_input="row",
    sites=("to_k", "to_v", "mod"), macs_per_sample=70, macs_share=0.125,
)  # fmt: skip


def test_the_report_lists_components(tmp_path: Path) -> None:
    run = zoo_run(4)
    assert "What the timestep turns into" not in run.write(tmp_path / "without.html")
    run = replace(run, quality=replace(run.quality, temporal=(EXACT, CODED)))
    page = html.unescape(re.sub(r"<wbr>|<[^>]+>", " ", run.write(tmp_path / "with.html")))
    words = " ".join(page.split())
    assert "1 of 2 carry an error; the others are exact" in words
    assert "blocks. 0. norm1. linear prompt and timestep table exact exact 0.0 %" in words
    assert re.search(r"t1/ Gemm timestep coded 41\.\d+ dB 33\.5\d* dB 2\.1 %", words)


def test_inspect_lists_components(tmp_path: Path) -> None:
    quality = replace(zoo_run(4).quality, temporal=(EXACT, CODED))
    (tmp_path / "quality.json").write_text(json.dumps(to_plain(quality)))
    rows = describe(tmp_path / "quality.json").as_dict()["tables"]["temporal features"]
    assert [row["module"] for row in rows] == ["blocks.0.norm1.linear", "t1/Gemm"]
    assert [row["held"] for row in rows] == ["table", "coded"]
    assert [row["SQNR worst, dB"] for row in rows] == [None, 33.5]
    assert [row["relative error, worst"] for row in rows] == [0.0, 0.021]


def test_the_share_of_work_that_runs_once_is_told() -> None:
    run = zoo_run(4)
    manifest = replace(run.manifest, hoisted=HOISTED)
    described = describe_manifest(manifest, "manifest.json").as_dict()["properties"]
    assert described["inputs of a prompt"] == "text, pooled"
    assert described["sites once per prompt"] == 3
    assert described["MACs once per prompt"] == 0.125
    found = cards(manifest, run.quality, run.benchmark, run.plan.prediction)
    (context,) = (card.context for card in found if card.name == "MACs in integers")
    assert context.endswith("; 3 (12.5 % of the MACs) run once per prompt")
    plain = describe_manifest(run.manifest, "manifest.json").as_dict()["properties"]
    assert "sites once per prompt" not in plain
