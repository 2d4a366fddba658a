"""`analyze` and `inspect` of an ONNX file alone, and of a run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from segquant_trt.cli.app import main
from segquant_trt.records import GraphFacts
from segquant_trt.records.codec import read_record, write_record
from tests.analyze.graphs import Drawing
from tests.shared import LazyFolders

B, S = "batch", "tokens"


def drawing() -> Drawing:
    """A Linear divided in two, one half behind GELU beside another input, and tokens joined."""
    d = Drawing()
    latent, time = d.input("hidden_states", B, S, 8), d.input("timestep", B, 4)
    halves = d.linear("modulation", time, 4, 16)
    shift, gate = d.ops("Split", halves, outputs=2, axis=-1, num_outputs=2, name="halves")
    wide = d.op("Unsqueeze", shift, d.constant([1], "int64"), name="wide_shift")
    x = d.op("Add", latent, wide, name="shifted")
    mlp = d.op("Gelu", d.linear("up", x, 8, 32), name="mlp")
    d.linear("down", d.op("Concat", x, mlp, axis=2, name="joined"), 40, 8)
    d.op("Relu", gate, name="gate")
    both = d.op("Concat", latent, d.input("encoder_hidden_states", B, 7, 8), axis=1, name="tokens")
    d.linear("token_site", both, 8, 8)
    return d


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The graph, its weights in a file that is gone."""
    path = tmp_path / "model.onnx"
    onnx.save(
        drawing().model(), str(path), save_as_external_data=True, location="w", size_threshold=60
    )
    (tmp_path / "w").unlink()
    return path


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_one_json_object_answers_for_any_file(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(graph), "--json"]) == 0
    found = answer(capsys)
    assert [site["site"] for site in found["sites"]] == ["modulation", "up", "down", "token_site"]
    assert found["sites"][2]["module"] is None
    assert found["segments"] == [
        {"site": "down", "module": None, "side": "input", "pattern": "concat", "sizes": [8, 32],
         "trivial": False, "producers": ["shifted", "mlp"]},
        {"site": "modulation", "module": None, "side": "output", "pattern": "split",
         "sizes": [8, 8], "trivial": False, "consumers": ["halves.0", "halves.1"]},
    ]  # fmt: skip
    assert found["polarity"] == [{"site": "down", "segment": 1, "activation": "gelu"}]
    assert found["timestep_only"] == [{"site": "modulation", "values": ["wide_shift", "gate"]}]
    assert found["prompt_constant"] == found["prompt_and_timestep"] == []
    assert (found["timestep"], found["prompt_inputs"]) == ("timestep", ["encoder_hidden_states"])
    (rejection,) = found["rejections"]
    assert set(rejection) == {"site", "pattern", "reason", "nodes"}
    assert (rejection["site"], rejection["nodes"]) == ("token_site", ["n:tokens"])
    assert len(found["notes"]) == 2


def test_guesses_are_overridden(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--timestep",
        "encoder_hidden_states",
        "--prompt-inputs",
        "timestep, hidden_states",
    ]
    assert main(["analyze", str(graph), "--json", *arguments]) == 0
    found = answer(capsys)
    assert found["prompt_inputs"] == ["timestep", "hidden_states"]
    assert found["prompt_constant"] == ["modulation", "up", "down"]
    assert found["notes"] == []


@pytest.mark.parametrize("arguments", [["--timestep", "t"], ["--prompt-inputs", "text"]])
def test_names_that_are_no_inputs_are_refused(
    arguments: list[str], graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", str(graph), *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"its inputs are {', '.join(drawing().inputs)}" in shown.err
    assert f"hint: pass {arguments[0]}" in shown.err


def test_people_are_answered_in_tables(graph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("analyze", "inspect"):
        assert main([command, str(graph)]) == 0
        text = capsys.readouterr().out
        assert "near misses" in text
        assert "joins axis 1, not the contraction axis" in text
        assert "8, 32" in text
        assert "'timestep' is taken for the timestep" in text


def test_inspect_shows_the_same_of_facts_and_of_the_graph(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from segquant_trt.analyze import analyze

    write_record(tmp_path / "facts.yaml", analyze(graph))
    tables = {}
    for name in ("model.onnx", "facts.yaml"):
        assert main(["inspect", str(tmp_path / name), "--json"]) == 0
        tables[name] = answer(capsys)["tables"]
    for title in ("segments", "polarity", "timestep only", "near misses"):
        assert tables["model.onnx"][title] == tables["facts.yaml"][title] != []


def test_inspect_says_why_a_graph_has_no_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d = Drawing()
    d.op("Relu", d.input("x", B))
    path = tmp_path / "plain.onnx"
    path.write_bytes(d.model().SerializeToString())
    assert main(["inspect", str(path)]) == 0
    assert "not analysed" in capsys.readouterr().out
    assert main(["analyze", str(path)]) == 1
    assert "nothing to quantise" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated_files_give_one_clear_error(
    share: float, graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = graph.read_bytes()
    graph.write_bytes(whole[: int(share * len(whole))])
    assert main(["analyze", str(graph), "--json"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("error: ") == 1
    assert "model.onnx" in shown.err


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(64), b"no graph\n" * 40])
def test_other_files_give_one_clear_error(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "picture.onnx"
    path.write_bytes(content)
    assert main(["analyze", str(path)]) == 1
    assert "picture.onnx" in capsys.readouterr().err


def test_a_run_folders_facts_follow_the_options(
    exported_tiny: LazyFolders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(exported_tiny["sd15"], tmp_path / "run"))
    assert main(["analyze", str(run), "--json"]) == 0
    assert answer(capsys)
    facts = read_record(run / "facts.yaml", GraphFacts)
    assert facts.timestep == "timestep"
    assert facts.prompt_inputs == ("encoder_hidden_states",)
    assert facts.prompt_constant
    assert main(["analyze", str(run), "--prompt-inputs", ""]) == 0
    assert read_record(run / "facts.yaml", GraphFacts).prompt_constant == ()
