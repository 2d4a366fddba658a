"""`bench RUN` is a stage, everything else a comparison; bad input ends in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segquant_trt.bench.rounds import Effort
from segquant_trt.cli.app import main
from segquant_trt.records.options import CompileOptions
from tests.pipeline.side_by_side import make_run

QUICK = ["--iterations", "5", "--duration", "0", "--warmUp", "0", "--no-memory", "--threads", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "small"
    make_run(folder)
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """What was run: the stage with its options, or the comparison with its request."""
    import segquant_trt.cli.bench as command
    from segquant_trt.records.comparison import Comparison

    found: list[tuple[str, Any, Any]] = []
    empty = Comparison(
        reference="r", subjects=(), cases=(), threads=1, seed=0, hardware={}, versions={}, notes=()
    )

    def stage(name: str, given: dict[str, Any], *, as_json: bool) -> None:
        given.pop("forget")
        found.append((name, CompileOptions(**given), as_json))

    def compare(request: Any, outputs: Any, *, progress: Any) -> Any:
        found.append(("compare", request, outputs))
        return empty, ()

    monkeypatch.setattr(command, "run_stage", stage)
    monkeypatch.setattr("segquant_trt.pipeline.comparison.compare.compare", compare)
    return found


@pytest.mark.parametrize("more", [[], ["--force"], ["--threads", "2", "--json"], ["--forget"]])
def test_a_run_folder_alone_is_the_stage(
    more: list[str], run: Path, asked: list[tuple[str, Any, Any]]
) -> None:
    assert main(["bench", str(run), *more]) == 0
    ((name, options, as_json),) = asked
    assert name == "bench"
    assert options.out == run
    assert options.force is ("--force" in more)
    assert as_json is ("--json" in more)


COMPARED = [
    [],
    ["--against", "float"],
    ["--batch", "1,2"],
    ["--iterations", "7"],
    ["--html", "x.html"],
    ["--no-memory"],
]


@pytest.mark.parametrize("more", COMPARED)
def test_anything_else_is_a_comparison(
    more: list[str], run: Path, asked: list[tuple[str, Any, Any]]
) -> None:
    subjects = [str(run), *more] if more else [str(run / "bundle")]
    assert main(["bench", *subjects]) == 0
    assert [name for name, *_ in asked] == ["compare"]


def test_options_reach_the_comparison(run: Path, asked: list[tuple[str, Any, Any]]) -> None:
    arguments = ["--against", "float", "--against", "torch", "--batch", "1,2", "--height", "32,64"]
    arguments += ["--axis", "text=7,9", "--iterations", "3", "--duration", "1.5", "--warmUp", "20"]
    arguments += [
        "--seed",
        "4",
        "--profile",
        "5",
        "--no-memory",
        "--threads",
        "2",
        "--useCudaGraph",
    ]
    arguments += ["--device", "cuda", "--dtype", "bfloat16"]
    arguments += ["--exportTimes", "t.json", "--plot", "p.png", "--html", "p.html", "-o", "r.json"]
    assert main(["bench", "a", "b", *arguments]) == 0
    ((_, request, outputs),) = asked
    assert request.subjects == ("a", "b")
    assert request.against == ("float", "torch")
    assert request.axes == {"text": (7, 9), "batch": (1, 2), "height": (32, 64)}
    assert request.effort == Effort(iterations=3, duration_s=1.5, warm_up_ms=20.0, seed=4)
    assert (request.top, request.memory, request.threads) == (5, False, 2)
    assert (request.device, request.dtype, request.cuda_graphs) == ("cuda", "bfloat16", True)
    assert (outputs.times, outputs.plot) == (Path("t.json"), Path("p.png"))
    assert (outputs.page, outputs.record) == (Path("p.html"), Path("r.json"))


def test_shapes_are_written_as_for_trtexec(asked: list[tuple[str, Any, Any]]) -> None:
    shapes = "added.text:2x1280,t:2,s:scalar"
    assert main(["bench", "a.onnx", "--shapes", shapes]) == 0
    assert asked[0][1].shapes == {"added.text": (2, 1280), "t": (2,), "s": ()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench"], "Missing argument"),
        (["bench", "a", "--batch", "one"], "'one' is no list of whole numbers"),
        (["bench", "a", "--axis", "tokens"], "is no axis with lengths"),
        (["bench", "a", "--shapes", "x=2x3"], "is no shape such as"),
        (["bench", "a", "--iterations", "many"], "not a valid integer"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_table_is_for_people_and_the_record_for_programs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(run), "--against", "float", *QUICK]) == 0
    text = capsys.readouterr().out
    assert text.startswith("batch 2, tokens 8: 5 interleaved rounds, wall clock")
    assert "at most 2.00× over 16 bits" in text
    page = tmp_path / "page.html"
    assert main(["bench", str(run), "--html", str(page), "--json", *QUICK]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["reference"] == "small (float)"
    assert answer["written"] == [str(page)]
    assert [facts["latent_sqnr_db"] for facts in answer["subjects"]] == [40.5, None]
    assert answer["cases"][0]["ceilings"][0]["speedup_attention_16bit"] == 2.0


BAD = [
    (["gone"], "gone does not exist"),
    (["RUN", "--iterations", "0"], "iterations is 0; allowed: 1 to 1000000"),
    (["RUN", "--duration", "nan"], "duration is nan"),
    (["RUN", "--batch", "0"], "batch is 0; allowed: whole numbers from 1"),
    (["RUN", "--batch", "99"], "has batch 99; allowed: 1 to 4"),
    (["RUN", "--threads", "0", "--no-memory"], "threads is 0"),
    (["RUN", "--axis", "depth=8"], "no input has an axis 'depth'"),
    (["RUN", "--inputs", "gone.safetensors"], "is no readable safetensors file"),
    (["RUN", "--against", "gone.onnx"], "gone.onnx does not exist"),
    (["RUN", "--against", "nonsense:RUN"], "nonsense:RUN does not exist"),
    (["RUN", "--plot", "x.gif"], "x.gif is no plot by its name"),
    (["RUN", "--html", "/proc/x.html"], "/proc/x.html"),
    (["RUN", "--no-memory", "--force"], "--force belongs to 'bench RUN'"),
    (["RUN", "--against", "torch", "--device", "cuda"], "torch sees none here"),
    (["RUN", "--against", "tensorrt-fp8"], "NVIDIA"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_ends_in_one_line(
    arguments: list[str], message: str, run: Path, tmp_path: Path
) -> None:
    given = [str(run) if word == "RUN" else word for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "segquant_trt.cli", "bench", *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    told = done.stderr[done.stderr.index("error: ") :]
    assert message in told
    assert told.count("\nhint: ") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
