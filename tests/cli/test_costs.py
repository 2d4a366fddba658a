"""`--costs local` on the command line: used when asked for, told when not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segquant_trt.cli.app import main
from segquant_trt.records import QuantPlan
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.costs import local_table_path
from segquant_trt.records.scores import write_scores
from segquant_trt.report.doctor import examine
from tests.plan.made_up import facts_of, option, score, scores_of, site, table, treatment
from tests.records.test_scores import ARRAYS

SITES = [site("a"), site("b")]
OPTIONS = (option(treatment("symmetric"), 1e-4, 30.0), option(treatment("shifted"), 1e-5, 40.0))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what planning reads, on a machine that nobody has measured."""
    monkeypatch.setenv("SEGQUANT_TRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("segquant_trt.records.costs.hardware_name", lambda: "Zilog Z80")
    folder = tmp_path / "run"
    folder.mkdir()
    write_record(folder / "facts.yaml", facts_of(*SITES))
    write_scores(
        folder / "scores.safetensors", scores_of(*(score(s, *OPTIONS) for s in SITES)), ARRAYS
    )
    monkeypatch.chdir(tmp_path)
    return folder


def expected_ms(run: Path) -> float:
    prediction = read_record(run / "plan.yaml", QuantPlan).prediction
    assert prediction is not None
    return prediction.latency_ms


def test_a_plan_says_once_whose_prices_it_has(run: Path, capsys) -> None:
    assert main(["plan", str(run), "--preset", "plain"]) == 0
    assert capsys.readouterr().err.count("segquant-trt costs --target onnxruntime") == 1
    write_record(local_table_path("onnxruntime"), table(call=3e6))
    assert main(["plan", str(run), "--force"]) == 0
    said = capsys.readouterr().err
    assert said.count("--costs local plans by it") == 1
    assert expected_ms(run) < 1.0, "never picked up unasked"


def test_a_plan_by_the_local_table(run: Path, capsys) -> None:
    write_record(local_table_path("onnxruntime"), table(call=3e6))
    assert main(["plan", str(run), "--preset", "plain", "--costs", "local"]) == 0
    assert expected_ms(run) == pytest.approx(6.0)
    assert "Zilog" not in capsys.readouterr().err
    assert main(["plan", str(run), "--explain", "a"]) == 0
    assert str(local_table_path("onnxruntime")) in capsys.readouterr().err, "it is remembered"


def test_there_is_no_local_table(run: Path, capsys) -> None:
    assert main(["plan", str(run), "--costs", "local"]) == 1
    said = capsys.readouterr().err
    assert "error: this machine has no cost table of its own for onnxruntime" in said
    assert "hint: 'segquant-trt costs --target onnxruntime' measures one" in said
    assert not (run / "plan.yaml").exists()


def test_a_file_of_that_name_is_given_with_its_folder(run: Path) -> None:
    write_record(Path("local"), table(call=5e6))
    assert main(["plan", str(run), "--preset", "plain", "--costs", "./local"]) == 0
    assert expected_ms(run) == pytest.approx(10.0)


@pytest.mark.usefixtures("run")
def test_doctor_says_whose_prices_plans_have() -> None:
    assert any("Zilog Z80" in note for note in examine().description().notes)
    write_record(local_table_path("onnxruntime"), table(call=5e6))
    assert any("--costs local plans by it" in note for note in examine().description().notes)
