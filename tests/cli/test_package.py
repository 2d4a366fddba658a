"""`segquant-trt package triton`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segquant_trt.cli.app import main
from tests.bundles import make_bundle
from tests.shared import once, run_folder


@pytest.fixture
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return once(run_folder(tmp_path_factory) / "cli-package", make_bundle) / "bundle"


def test_the_answer_is_what_the_repository_says(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models"
    arguments = ["package", "triton", str(bundle), "-o", str(out), "--threads", "2", "--json"]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"repository": str(out), **json.loads((out / "packaged.json").read_text())}
    assert said["model"] == "small"
    assert 'string_value: "2"' in (out / "small" / "config.pbtxt").read_text()
    assert main(arguments) == 1
    assert "holds a repository already" in capsys.readouterr().err
    assert main([*arguments, "--force", "--name", "other"]) == 0
    assert (out / "other").is_dir()
    assert not (out / "small").exists()


def test_a_damaged_bundle_is_not_packaged(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with (damaged / "weights.bin").open("ab") as stream:
        stream.write(b"x")
    assert main(["package", "triton", str(damaged), "-o", str(tmp_path / "models")]) == 1
    error = capsys.readouterr().err
    assert "weights.bin" in error
    assert "hint: " in error
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "-o", "out"], "does not exist"),
        (["."], "Missing option '-o'"),
        ([".", "-o", "out"], "manifest.json does not exist"),
        ([".", "-o", "out", "--max-batch-size", "0"], "--max-batch-size"),
        ([".", "-o", "out", "--name", "a/b"], "cannot be named 'a/b'"),
    ],
)
def test_bad_input_is_one_error(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["package", "triton", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
