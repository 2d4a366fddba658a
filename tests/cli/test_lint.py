"""`segquant-trt lint`: what it prints, its exit status, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from segquant_trt.cli.app import main
from tests.backends.tensorrt.lint.parts import coded, linear, op, then
from tests.backends.tensorrt.lint.sketch import FP8, Sketch

RTX = ["--target", "tensorrt-rtx"]


def saved(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


def chain(count: int) -> onnx.ModelProto:
    """Products in a row, each with the weight's scales along the wrong axis."""
    s = Sketch()
    x = s.input("x", "batch", 8, 32)
    for number in range(count):
        x = s.op("MatMul", s.pair(x), s.weight(32, 32, axis=0), name=f"site_{number}")
    s.output(x)
    return s.model()


def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_valid_graph_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", saved(linear(), tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "model.onnx for tensorrt on sm_89" in text
    assert "nothing stands against it" in text
    assert "1 of 1 in 8 bits" in text


def test_hundreds_of_nodes_share_one_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(chain(300), tmp_path)
    assert main(["lint", path, *RTX]) == 1
    text = capsys.readouterr().out
    assert text.count("not-8-bit: weight-axis (300 nodes)") == 1
    assert text.count("fix: ") == 1
    assert "site_0: " in text
    assert "... and 297 more" in text
    assert len(text.splitlines()) < 20
    assert main(["lint", path, *RTX, "--all"]) == 1
    assert "site_299: " in capsys.readouterr().out


def test_one_json_object_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", saved(chain(2), tmp_path), *RTX, "--gpu", "120", "--json"]) == 1
    found = answer(capsys)
    assert (found["target"], found["capability"]) == ("tensorrt-rtx", "sm_120")
    assert (found["outcome"], found["sites_total"], found["sites_8_bit"]) == ("not-8-bit", 2, 0)
    assert found["counts"]["not-8-bit"] == 2
    assert [site["site"] for site in found["sites"]] == ["site_0", "site_1"]
    assert {finding["rule"] for finding in found["findings"]} == {"weight-axis"}
    assert all(finding["fix"] and finding["reason"] for finding in found["findings"])


def test_advice_alone_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaled = linear(then(coded(), op("Mul", 2.0)))
    assert main(["lint", saved(scaled, tmp_path), *RTX]) == 0
    assert "advice: between-dq-and-product" in capsys.readouterr().out
    assert main(["lint", saved(scaled, tmp_path)]) == 1
    assert "not-8-bit: between-dq-and-product" in capsys.readouterr().out


def test_other_values_than_the_files_are_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", saved(linear(coded(np.inf)), tmp_path)]) == 1
    assert "compute other values than the file says" in capsys.readouterr().out


def test_fp8_on_ampere_is_told_before_any_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(linear(codes=FP8), tmp_path)
    assert main(["lint", path, "--gpu", "sm_80"]) == 1
    text = capsys.readouterr().out
    assert "the builder will fail" in text
    assert "build-error: fp8-on-this-gpu" in text
    assert "FP8 needs sm_89 or later" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpu", "sm_90", *RTX], "sm_75, sm_80, sm_86, sm_89, sm_120, sm_121"),
        (["--gpu", "H100"], "'H100' is no GPU"),
        (["--tensorrt-version", "new"], "10.13 or 11.4"),
    ],
)
def test_what_does_not_exist_is_refused(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lint", saved(linear(), tmp_path), *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert told in shown.err
    assert shown.err.count("hint: ") == 1


@pytest.mark.parametrize("content", [b"", b"no graph\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_other_files_give_one_clear_error(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert main(["lint", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "model.onnx" in shown.err
