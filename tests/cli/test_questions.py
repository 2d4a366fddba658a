"""Commands that answer something about a file or this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segquant_trt.cli.app import main
from segquant_trt.records import QuantPlan
from segquant_trt.records.codec import write_record


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    record = QuantPlan(
        target="onnxruntime",
        preset="static-int8",
        onnx_sha256="a" * 64,
        facts_sha256="b" * 64,
        calibration_sha256="c" * 64,
        sites=(),
    )
    write_record(path, record)
    return path


def test_doctor_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"python", "cores", "memory"} <= set(answer["properties"])


def test_doctor_answers_in_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "onnxruntime" in capsys.readouterr().out


def test_inspect_answers_in_json(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(plan), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "onnxruntime" in answer["properties"].values()


def test_inspect_answers_in_text(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(plan)]) == 0
    assert "onnxruntime" in capsys.readouterr().out


def test_inspect_refuses_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "noise.bin"
    path.write_bytes(bytes(range(256)))
    assert main(["inspect", str(path)]) == 1
    text = capsys.readouterr().err
    assert "noise.bin" in text
    assert "hint: " in text
