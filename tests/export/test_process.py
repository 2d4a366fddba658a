"""The export process: its errors, its crashes, and its end when the parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.export import validate
from segquant_trt.export.job import Job, run_job
from segquant_trt.export.process import run_in_process
from segquant_trt.models.source import resolve
from tests.shared import LazyFolders

_EXPORT = """
import sys
from pathlib import Path
from segquant_trt.export import export
from segquant_trt.models.source import resolve
export(resolve(sys.argv[1]), Path(sys.argv[2]), on_progress=lambda f, t: print(t, flush=True))
"""


def _job(model: Path, out: Path) -> Job:
    source = resolve(str(model))
    return Job(
        class_name=source.class_name,
        config=source.config,
        checkpoint=source.checkpoint,
        out=out / "model.onnx",
    )


def test_a_weight_of_another_shape_is_named(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    (original,) = tiny_denoisers["sd3"].glob("*.safetensors")
    file = tmp_path / original.name
    save_file(load_file(original) | {"proj_out.bias": np.zeros(3, np.float16)}, file)
    (tmp_path / "config.json").write_bytes((tiny_denoisers["sd3"] / "config.json").read_bytes())
    with pytest.raises(SegQuantError, match=r"'proj_out.bias' .* has shape \[3\]") as caught:
        run_in_process(_job(tmp_path, tmp_path / "run"), lambda fraction, text: None)
    assert "fetch both again" in caught.value.hint
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_a_crash_shows_the_process_last_words(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    broken = replace(_job(tiny_denoisers["sd3"], tmp_path), checkpoint=(Path("no\0path"),))
    with pytest.raises(SegQuantError, match="exit status 1") as caught:
        run_in_process(broken, lambda fraction, text: None)
    assert "ValueError: embedded null byte" in caught.value.what


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_layers": "three"}, "TypeError"),
        ({"num_attention_heads": None}, "TypeError"),
        ({"num_layers": 2}, "'transformer_blocks.1."),
        ({"num_layers": -1}, "'transformer_blocks.0."),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_sentence(
    change: dict[str, Any], complaint: str, tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    job = _job(tiny_denoisers["sd3"], tmp_path)
    with pytest.raises(SegQuantError, match=complaint) as caught:
        run_job(replace(job, config=job.config | change), lambda fraction, text: None)
    assert "config.json" in caught.value.what
    assert "\n" not in caught.value.what
    assert not job.out.exists()


def test_a_graph_that_fails_its_check_is_not_left_behind(
    tiny_denoisers: LazyFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "TOLERANCE", -1.0)
    job = _job(tiny_denoisers["sd3"], tmp_path)
    with pytest.raises(SegQuantError, match="differs from torch"):
        run_job(job, lambda fraction, text: None)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_nothing(tiny_denoisers: LazyFolders, tmp_path: Path) -> None:
    def interrupt(fraction: float, text: str) -> None:
        if "against torch" in text:
            assert list(tmp_path.glob(".model.onnx.*.tmp"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_process(_job(tiny_denoisers["sd3"], tmp_path), interrupt)
    assert not list(tmp_path.iterdir())


def test_a_killed_parent_takes_the_exporter_with_it(
    tiny_denoisers: LazyFolders, tmp_path: Path
) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _EXPORT, str(tiny_denoisers["sd3"]), str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert parent.stdout is not None
    assert "tracing" in parent.stdout.readline()
    (child,) = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the export process outlived its parent"
        time.sleep(0.05)
    assert not (tmp_path / "run" / "model.onnx").exists()
