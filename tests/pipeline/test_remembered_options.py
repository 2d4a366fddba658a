"""Single stages on the command line, after a compilation that was told something."""

from __future__ import annotations

from pathlib import Path

import pytest

from segquant_trt.cli.app import main
from segquant_trt.pipeline import STAGES, compile
from segquant_trt.records import QuantPlan
from segquant_trt.records.codec import read_record
from tests.shared import LazyFolders


def planned(run: Path) -> QuantPlan:
    return read_record(run / "plan.yaml", QuantPlan)


def test_a_plan_stays_for_the_target_that_it_was_compiled_for(
    flux_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(flux_copy)
    assert main(["plan", run, "--target", "openvino", "--weight-scales", "mse"]) == 0
    assert "as an earlier command was told" not in capsys.readouterr().err
    assert main(["plan", run, "--keep-float", "*.ff.*", "--weight-scales", "absmax"]) == 0
    assert "was told (--forget does without): --target openvino\n" in capsys.readouterr().err
    assert planned(flux_copy).target == "openvino"
    assert "kept in float by --keep-float" in (flux_copy / "plan.yaml").read_text()
    assert main(["plan", run, "--forget"]) == 0
    assert "was told" not in capsys.readouterr().err
    assert planned(flux_copy).target == "onnxruntime"


@pytest.mark.parametrize("stage", ["calibrate", "verify", "bench"])
def test_stages_of_a_finished_run_have_nothing_to_do(
    stage: str, flux_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([stage, str(flux_copy)]) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_a_compilation_takes_defaults_whatever_was_told_before(
    flux_copy: Path, tiny_denoisers: LazyFolders, flux_inputs: Path
) -> None:
    again = compile(str(tiny_denoisers["flux"]), out=flux_copy, inputs=flux_inputs)
    assert len(again.skipped) == len(STAGES)
    assert main(["plan", str(flux_copy), "--target", "openvino"]) == 0
    compile(str(tiny_denoisers["flux"]), out=flux_copy, inputs=flux_inputs)
    assert planned(flux_copy).target == "onnxruntime"
    assert main(["plan", str(flux_copy)]) == 0
    assert planned(flux_copy).target == "onnxruntime"
