"""The ablation's tables and chart are made of its record, and stand in both READMEs as made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation.chart import draw
from benchmarks.ablation.rows import SHOWN, slowdown
from benchmarks.ablation.tables import (
    RESULT,
    blocks,
    image_table,
    latency_table,
    latent_table,
    short_table,
)
from benchmarks.marked_blocks import block, write_block


def row(model: str, method: str, latent: float, *, chosen: str = "W8A8", **more: Any) -> dict:
    return {
        "model": model,
        "format": chosen,
        "method": method,
        "target": "onnxruntime",
        "sqnr_db_mean": latent + 4.0,
        "sqnr_db_worst": latent - 9.0,
        "latent_sqnr_db": latent,
        "latent_sqnr_db_stderr": 0.25,
        "psnr_db": latent + 8.0,
        "ssim": 0.99,
        "classifier_accuracy": 0.995,
        "classifier_accuracy_float": 1.0,
        "frechet_distance": 21.5,
        "frechet_distance_float": 21.0,
        "macs_integer_share": 0.97,
        "macs_coded_share": 0.97,
        "size_bytes": 30,
        "size_bytes_float": 40,
    } | more


def figure(over_plain: float, over_float: float) -> dict[str, Any]:
    def ratio(middle: float) -> dict[str, float]:
        return {"median": middle, "low": middle - 0.01, "high": middle + 0.01}

    return {"median_ms": 250.0, "over_float": ratio(over_float), "over_plain": ratio(over_plain)}


UNJUDGED = dict.fromkeys(
    (
        "classifier_accuracy",
        "classifier_accuracy_float",
        "frechet_distance",
        "frechet_distance_float",
    )
)
RECORD: dict[str, Any] = {
    "rows": [
        row("digits-flux", "ort-minmax-linears", 36.0),
        row("digits-flux", "ort-percentile-linears", 33.0),
        row("digits-flux", "plain", 38.74),
        row("digits-flux", "auto-balanced", 43.5),
        row("digits-flux", "only-gptq", 40.0, **UNJUDGED),
        row("digits-flux", "plain", 26.3, chosen="W4A8"),
        row("digits-flux", "weights-floor", 52.5, chosen="W8A16", **UNJUDGED),
        row("digits-flux-outliers", "plain", 19.4),
        row("digits-flux-outliers", "auto-balanced", 41.9),
    ],
    "latencies": [
        {
            "model": "digits-flux",
            "quiet": False,
            "variants": {
                "float": figure(0.5, 1.0),
                "plain": figure(1.0, 2.0),
                "auto-balanced": figure(0.8, 1.6),
            },
            "predictions": {
                "plain": {"latency_ms": 200.0, "latency_ms_plain": 200.0},
                "auto-balanced": {"latency_ms": 230.0, "latency_ms_plain": 200.0},
            },
        }
    ],
}


def test_the_short_table_shows_better_calibrations_and_latency_where_it_was_timed() -> None:
    assert short_table(RECORD).splitlines() == [
        "| W8A8 | flux | flux-outliers |",
        "|-|-|-|",
        "| ONNX Runtime static | 36.0 dB | - |",
        "| plain static INT8 | 38.7 dB (1.00x) | 19.4 dB |",
        "| auto, balanced | 43.5 dB (1.25x) | 41.9 dB |",
        "| *INT8 weights, float activations* | 52.5 dB | - |",
    ]


def test_a_format_has_every_method_of_its_own() -> None:
    assert latent_table(RECORD, "W4A8").splitlines()[2:] == ["| plain | 26.3 ± 0.2 | - |"]
    methods = [line.split(" | ")[0] for line in latent_table(RECORD, "W8A8").splitlines()[2:]]
    assert methods == [
        "| ort-minmax-linears", "| ort-percentile-linears", "| plain", "| auto-balanced",
        "| only-gptq",
    ]  # fmt: skip


def test_only_judged_images_are_tabled() -> None:
    lines = image_table(RECORD).splitlines()[2:]
    assert len(lines) == len(RECORD["rows"]) - 2
    assert lines[2] == (
        "| flux | W8A8 | plain | 42.7 / 29.7 dB | 46.7 dB | 0.9900 | 99.5% (100.0%) "
        "| 21.5 (21.0) | 97.0% | 97.0% | 0.75x |"
    )


def test_slower_plans_have_ratios_above_one_and_bounds_around_them() -> None:
    middle, low, high = slowdown(RECORD, "digits-flux", "auto-balanced")
    assert (middle, low, high) == pytest.approx((1.25, 1 / 0.81, 1 / 0.79))
    assert all(value != value for value in slowdown(RECORD, "digits-flux-outliers", "plain"))
    last = latency_table(RECORD).splitlines()[-1]
    assert "1.250x (1.235-1.266) | 1.150x | 1.60x (1.59-1.61) | not quiet" in last


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    draw(RECORD, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    draw({"rows": [], "latencies": []}, tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()


def test_every_line_that_is_shown_has_a_method() -> None:
    from benchmarks.ablation.methods import MATRIX

    assert {method for shown in SHOWN for method in shown.methods} <= set(MATRIX)


def test_a_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    text = "a\n<!-- table: one -->\nold\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\n"
    path.write_text(text)
    write_block(path, "one", r"| new \1 |")
    assert path.read_text() == text.replace("old", r"| new \1 |")
    assert block(path.read_text(), "two") == ""
    with pytest.raises(ValueError, match="three"):
        write_block(path, "three", "")


def test_the_readmes_tables_are_the_committed_records() -> None:
    record = RECORD | {"rows": [], "latencies": []}
    if RESULT.exists():
        record = json.loads(RESULT.read_text(encoding="utf-8"))
    for (path, name), content in blocks(record).items():
        expected = content if RESULT.exists() else ""
        assert block(path.read_text(encoding="utf-8"), name) == expected, name
