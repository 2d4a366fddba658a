"""`kill -9` in every stage, then the same command: it goes on, and ends in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from segquant_trt.pipeline import STAGES
from tests.shared import LazyFolders

DETERMINISTIC = (
    "model.onnx", "model.yaml", "facts.yaml", "calibration.safetensors", "scores.safetensors",
    "trials.yaml", "plan.yaml", "quantized.onnx", "quantized.weights", "bundle/manifest.json",
    "bundle/model.onnx", "quality.json",
)  # fmt: skip


def command(model: Path, inputs: Path, run: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "segquant_trt.cli",
        "compile",
        str(model),
        "-o",
        str(run),
        "--inputs",
        str(inputs),
        "--json",
    ]


def contents(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in DETERMINISTIC}


def kill_in(stage: str, arguments: list[str]) -> None:
    """Start the compilation, and kill it with its children's parent gone once `stage` has begun."""
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{stage} ..."):
                break
        else:
            raise AssertionError(f"the stage {stage} was never announced")
        time.sleep(0.3)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "a child outlived its killed parent"


@pytest.mark.full
@pytest.mark.timeout(900)
def test_killed_in_every_stage_it_ends_in_the_same_bytes(
    tiny_denoisers: LazyFolders, flux_inputs: Path, compiled_flux: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = command(tiny_denoisers["flux"], flux_inputs, run)
    for stage in STAGES:
        # The previous round may have outrun its killer and begun, even finished, this stage.
        (run / ".stages" / f"{stage.name}.json").unlink(missing_ok=True)
        kill_in(stage.name, arguments)
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "export ..." not in done.stderr
    assert contents(run) == contents(compiled_flux)
    leftovers = [path for path in run.rglob("*") if path.name.endswith(".tmp")]
    again = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "nothing to do" in again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == json.loads(done.stdout.splitlines()[-1])
    assert not leftovers


def test_a_second_run_does_nothing_in_under_two_seconds(
    tiny_denoisers: LazyFolders, flux_inputs: Path, flux_copy: Path
) -> None:
    from segquant_trt.pipeline import compile

    before = {path: path.stat().st_mtime_ns for path in flux_copy.rglob("*") if path.is_file()}
    start = time.perf_counter()
    result = compile(str(tiny_denoisers["flux"]), out=flux_copy, inputs=flux_inputs)
    assert time.perf_counter() - start < 2.0
    assert result.skipped == tuple(stage.name for stage in STAGES)
    after = {path: path.stat().st_mtime_ns for path in flux_copy.rglob("*") if path.is_file()}
    assert after == before


def test_another_target_repeats_only_what_depends_on_it(
    tiny_denoisers: LazyFolders, flux_inputs: Path, flux_copy: Path
) -> None:
    from segquant_trt.pipeline import compile

    model = str(tiny_denoisers["flux"])
    result = compile(model, out=flux_copy, inputs=flux_inputs, keep_float=["*proj_mlp"])
    assert result.skipped == ("export", "calibrate", "analyze", "score")
