"""How failures of commands look, and what the command line passes on."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from segquant_trt.cli.app import COMMANDS, main
from segquant_trt.cli.arguments import Session
from segquant_trt.errors import SegQuantError
from segquant_trt.records.options import CompileOptions


@dataclass
class Result:
    summary: dict[str, Any]


@dataclass
class Pipeline:
    """Stands in for `segquant_trt.pipeline`: remembers calls, then answers or raises."""

    failure: BaseException | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    given: frozenset[str] | None = None

    def _answer(self, *call: Any) -> Result:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return Result({"sqnr_db_mean": 31.25, "psnr_db": None, "bundle": "run/bundle"})

    def compile_model(self, options: CompileOptions, *, progress: Any) -> Result:
        progress.note("export: done")
        return self._answer("compile", options)

    def run_stage(
        self,
        stage: str,
        options: CompileOptions,
        *,
        progress: Any,
        given: frozenset[str] | None,
    ) -> Result:
        self.given = given
        return self._answer(stage, options)

    def generate(self, bundle: Path, options: CompileOptions, *, progress: Any) -> Result:
        return self._answer("generate", bundle, options)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    import segquant_trt

    fake = Pipeline()
    module = ModuleType("segquant_trt.pipeline")
    for name in ("compile_model", "run_stage", "generate"):
        setattr(module, name, getattr(fake, name))
    monkeypatch.setitem(sys.modules, "segquant_trt.pipeline", module)
    monkeypatch.setattr(segquant_trt, "pipeline", module, raising=False)
    return fake


def compile_into(out: Path, *more: str) -> int:
    return main(["compile", "zoo:digits-unet", "-o", str(out), *more])


def test_json_is_the_last_line_of_stdout_and_progress_goes_to_stderr(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_into(tmp_path, "--json") == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out.splitlines()[-1]) == {
        "sqnr_db_mean": 31.25,
        "psnr_db": None,
        "bundle": "run/bundle",
    }
    assert streams.err == "export: done\n"


def test_people_get_aligned_lines_without_absent_figures(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_into(tmp_path) == 0
    assert capsys.readouterr().out == "sqnr_db_mean  31.25\nbundle        run/bundle\n"


def test_options_reach_the_pipeline(pipeline: Pipeline, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a seven\n")
    arguments = ["--target", "openvino", "--prompts", str(prompts), "--steps", "7", "--seed", "3"]
    arguments += ["--keep-float", "time_*", "--keep-float", "proj_out", "--quantize-all", "--full"]
    assert compile_into(tmp_path / "run", *arguments) == 0
    assert pipeline.calls == [
        (
            "compile",
            CompileOptions(
                model="zoo:digits-unet",
                out=tmp_path / "run",
                target="openvino",
                prompts=prompts,
                steps=7,
                seed=3,
                keep_float=("time_*", "proj_out"),
                quantize_all=True,
                full=True,
            ),
        )
    ]


STAGES = ("calibrate", "analyze", "trial", "plan", "rewrite", "build", "verify", "bench", "report")


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_command(stage: str, pipeline: Pipeline, tmp_path: Path) -> None:
    assert main([stage, str(tmp_path), "--force"]) == 0
    assert pipeline.calls == [(stage, CompileOptions(out=tmp_path, force=True))]


def test_stages_know_which_options_were_given(pipeline: Pipeline, tmp_path: Path) -> None:
    given = ["--target", "onnxruntime", "--keep-float", "a", "--keep-float", "b"]
    assert main(["plan", str(tmp_path), *given]) == 0
    assert pipeline.given == {"out", "target", "keep_float"}
    assert main(["plan", str(tmp_path), *given, "--forget"]) == 0
    assert pipeline.given is None
    assert pipeline.calls[0] == pipeline.calls[1]


def test_generate_passes_the_bundle_and_the_float_model(pipeline: Pipeline, tmp_path: Path) -> None:
    out = tmp_path / "images"
    assert main(["generate", str(tmp_path), "-o", str(out), "--model", "zoo:digits-flux"]) == 0
    expected = CompileOptions(out=out, model="zoo:digits-flux")
    assert pipeline.calls == [("generate", tmp_path, expected)]


FAILURES = [
    pytest.param(
        SegQuantError("model.onnx is cut short", hint="export it again"),
        1,
        "error: model.onnx is cut short\nhint: export it again\n",
        id="known",
    ),
    pytest.param(MemoryError(), 1, "error: this machine has not enough free memory\n", id="memory"),
    pytest.param(
        OSError(errno.ENOSPC, "No space left", "run/x"),
        1,
        "error: no space left on the device while writing run/x\n",
        id="space",
    ),
    pytest.param(
        KeyboardInterrupt(),
        130,
        "interrupted; run the same command again to continue\n",
        id="interrupt",
    ),
    pytest.param(ValueError("odd"), 70, "error: unexpected ValueError: odd\nhint: ", id="bug"),
]


@pytest.mark.parametrize(("failure", "code", "message"), FAILURES)
def test_failures_are_short(
    failure: BaseException,
    code: int,
    message: str,
    pipeline: Pipeline,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipeline.failure = failure
    assert compile_into(tmp_path) == code
    streams = capsys.readouterr()
    assert message in streams.err
    assert "Traceback" not in streams.err
    assert streams.out == ""


def test_debug_shows_the_traceback(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.failure = SegQuantError("broken", hint="mend it")
    assert compile_into(tmp_path, "--debug") == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.endswith("error: broken\nhint: mend it\n")


BAD_USAGE = [
    pytest.param(["compile", "zoo:digits-unet"], "Missing option '-o'", id="no output"),
    pytest.param(["compile", "-o", "run"], "Missing argument 'MODEL'", id="no model"),
    pytest.param(
        ["compile", "m", "-o", "r", "--target", "npu"], "'npu' is not one of", id="target"
    ),
    pytest.param(["compile", "m", "-o", "r", "--steps", "ten"], "not a valid integer", id="steps"),
    pytest.param(["compile", "m", "-o", "r", "--inputs", "gone"], "does not exist", id="inputs"),
    pytest.param(["verify", "gone"], "does not exist", id="run folder"),
    pytest.param(["quantize"], "No such command 'quantize'", id="command"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_USAGE)
def test_wrong_usage_exits_with_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_bad_value_is_an_error_with_a_hint(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_into(tmp_path, "--steps", "0") == 1
    assert capsys.readouterr().err.startswith("error: steps is 0; allowed: a whole number from 1")
    assert pipeline.calls == []


def test_summaries_fit_one_line() -> None:
    assert all(len(entry.summary) <= 72 and entry.summary.endswith(".") for entry in COMMANDS)


def test_session_starts_without_debug() -> None:
    assert Session().debug is False
