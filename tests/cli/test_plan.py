"""`plan --explain` as a command: plans when it must, never twice, in words and in JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from segquant_trt.cli.app import main
from segquant_trt.records import QuantPlan
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.scores import write_scores
from tests.plan.made_up import PRICES, facts_of, option, score, scores_of, site, table, treatment
from tests.records.test_scores import ARRAYS

SITES = [site("a"), site("b"), site("last", "final")]
OPTIONS = (
    option(treatment("symmetric"), 1e-4, 30.0),
    option(treatment("shifted"), 1e-5, 40.0),
    option(treatment("shifted", factor="per_token"), 1e-6, 50.0),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with what planning reads."""
    write_record(tmp_path / "facts.yaml", facts_of(*SITES))
    scores = scores_of(*(score(s, *OPTIONS) for s in SITES))
    write_scores(tmp_path / "scores.safetensors", scores, ARRAYS)
    write_record(tmp_path / "costs.yaml", table(**PRICES))
    return tmp_path


def told(run: Path, capsys: pytest.CaptureFixture[str], *arguments: str):
    """The JSON answer, and what was said on stderr."""
    costs = ("--costs", str(run / "costs.yaml"))
    assert main(["plan", str(run), *costs, *arguments, "--json"]) == 0
    streams = capsys.readouterr()
    return json.loads(streams.out), streams.err


def test_a_folder_without_a_plan_is_planned_first(run: Path, capsys) -> None:
    story, said = told(run, capsys, "--preset", "plain", "--explain", "module.b")
    assert (run / "plan.yaml").exists()
    assert "plan ..." in said
    assert story["properties"]["site"] == "b"
    assert story["properties"]["chosen"] == "shifted"
    assert len(story["tables"]["options, the cheapest first"]) == 4


def test_a_plan_that_is_there_is_explained_as_it_is(run: Path, capsys) -> None:
    told(run, capsys, "--preset", "plain", "--explain", "b")
    before = (run / "plan.yaml").read_bytes()
    story, said = told(run, capsys, "--preset", "auto", "--max-latency", "9x", "--explain", "b")
    assert (run / "plan.yaml").read_bytes() == before
    assert "plan ..." not in said
    assert "--max-latency --preset would need a new plan" in said
    assert story["properties"]["chosen"] == "shifted"
    assert story["notes"] == []


def test_an_edit_is_explained(run: Path, capsys) -> None:
    told(run, capsys, "--preset", "plain", "--explain", "b")
    path = run / "plan.yaml"
    text = path.read_text()
    assert "kind: shifted, scale: 0.01" in text
    path.write_text(text.replace("kind: shifted, scale: 0.01", "kind: shifted, scale: 0.5"))
    story, _ = told(run, capsys, "--explain", "a")
    assert story["properties"]["share of expected error"] is None
    assert any("not scored" in note for note in story["notes"])


def test_an_edit_that_lost_a_site_is_named(run: Path, capsys) -> None:
    told(run, capsys, "--preset", "plain", "--explain", "b")
    plan = read_record(run / "plan.yaml", QuantPlan)
    write_record(run / "plan.yaml", replace(plan, sites=plan.sites[1:]))
    assert main(["plan", str(run), "--costs", str(run / "costs.yaml"), "--explain", "last"]) == 1
    assert f"the plan lacks site '{plan.sites[0].site}'" in capsys.readouterr().err


def test_other_scores_than_the_plans_are_noted(run: Path, capsys) -> None:
    told(run, capsys, "--explain", "b")
    scores = scores_of(*(score(s, *OPTIONS[:2]) for s in SITES))
    write_scores(run / "scores.safetensors", scores, ARRAYS)
    story, _ = told(run, capsys, "--explain", "b")
    assert any("made from other scores" in note for note in story["notes"])


def test_in_words(run: Path, capsys) -> None:
    costs = ["--costs", str(run / "costs.yaml")]
    assert main(["plan", str(run), *costs, "--explain", "last"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("site\n")
    assert "final projection" in text
    assert "left in float" in text
    assert "run  " not in text, "the stage's own answer is not printed besides"


def test_an_unknown_site_is_refused_before_anything_is_planned(run: Path, capsys) -> None:
    costs = ["--costs", str(run / "costs.yaml")]
    assert main(["plan", str(run), *costs, "--explain", "lst"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: 'lst' names none of the 3 sites; near ones are")
    assert "last" in said
    assert not (run / "plan.yaml").exists()


@pytest.mark.parametrize("lost", ["facts.yaml", "scores.safetensors"])
def test_what_is_missing_is_named(run: Path, lost: str, capsys) -> None:
    (run / lost).unlink()
    assert main(["plan", str(run), "--explain", "a"]) == 1
    said = capsys.readouterr().err
    assert "'plan --explain' needs" in said
    assert lost in said


def test_prices_and_rules_are_recalled(run: Path, capsys) -> None:
    (run / "rules.yaml").write_text("schema_version: 1\nrules: [{sites: b, forbid: [symmetric]}]\n")
    costs = ["--costs", str(run / "costs.yaml"), "--rules", str(run / "rules.yaml")]
    assert main(["plan", str(run), *costs]) == 0
    capsys.readouterr()
    assert main(["plan", str(run), "--explain", "b", "--json"]) == 0
    streams = capsys.readouterr()
    assert "--costs" in streams.err
    rows = json.loads(streams.out)["tables"]["options, the cheapest first"]
    verdicts = {row["option"]: row["verdict"] for row in rows}
    assert verdicts["symmetric"] == "not admitted: the rule for 'b' does not admit it"
