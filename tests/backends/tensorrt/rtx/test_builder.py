"""Building in a child process: engines, and one clear error for everything that goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from segquant_trt.backends.tensorrt.rtx import (
    CAPABILITIES,
    ShapeRange,
    available,
    build,
    build_each,
    build_portable,
    builder,
    products_of,
    prove,
)
from segquant_trt.errors import MissingDependencyError, SegQuantError
from tests.backends.tensorrt.rtx.graphs import DEPTH, ROWS, WIDTH, Code, Graph
from tests.backends.tensorrt.rtx.workshop import needs_rtx


def model(*, batch: int | str = 2, code: Code = "int8") -> onnx.ModelProto:
    graph = Graph()
    return graph.model(graph.linear(graph.input("x", batch, ROWS, DEPTH), "site", code=code))


def serialized(**options: object) -> bytes:
    return model(**options).SerializeToString()  # type: ignore[arg-type]


class Watched:
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int | None]] = []

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def update(self, label: str, done: int, total: int | None) -> None:
        self.updates.append((label, done, total))


@needs_rtx
def test_one_call_builds_for_several_gpus(tmp_path: Path) -> None:
    progress, log = Watched(), tmp_path / "build.log"
    engines = build_each(
        serialized(), capabilities=("sm_80", "sm_120"), log_path=log, progress=progress
    )
    assert list(engines) == ["sm_80", "sm_120"]
    for capability, engine in engines.items():
        report = engine.report
        assert report.capability == capability
        assert report.version == available()
        assert report.engine_bytes == len(engine.serialized) > DEPTH * WIDTH
        assert report.weights_bytes >= DEPTH * WIDTH
        assert report.scratch_bytes > 0
        assert report.seconds > 0
        assert prove(report, products_of(model()))["site"].integer
        ends = [step for step in progress.updates if step[0] == f"building for {capability}"]
        assert ends[-1][1] == ends[-1][2]
        assert "Layers:" in (tmp_path / f"build-{capability}.log").read_text(encoding="utf-8")
    assert engines["sm_80"].serialized != engines["sm_120"].serialized


@needs_rtx
def test_one_engine_for_several_gpus() -> None:
    engine = build_portable(serialized(), capabilities=("sm_75", "sm_89", "sm_121"))
    assert engine.report.capability == "sm_75+sm_89+sm_121"
    assert prove(engine.report, products_of(model()))["site"].integer
    single = build(serialized()).report.engine_bytes
    assert engine.report.engine_bytes < 1.1 * single
    with pytest.raises(SegQuantError, match="GPUs of sm_86 have no FP8"):
        build_portable(serialized(code="fp8"), capabilities=("sm_86", "sm_89"))


@needs_rtx
def test_every_profile_is_proven() -> None:
    small, large = (ShapeRange.fixed(rows, ROWS, DEPTH) for rows in (1, 4))
    report = build(serialized(batch="b"), profiles=[{"x": small}, {"x": large}]).report
    proof = prove(report, products_of(model()))["site"]
    assert proof.integer
    assert len(proof.products) == 2


@needs_rtx
def test_external_data_lies_beside_the_file_or_where_it_is_said_to_be(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    path = weights / "model.onnx"
    onnx.save_model(model(), path, save_as_external_data=True, location="w", size_threshold=64)
    assert (weights / "w").stat().st_size > DEPTH * WIDTH
    sites = products_of(model())
    for engine in (build(path), build(path.read_bytes(), folder=weights)):
        assert prove(engine.report, sites)["site"].integer
        assert engine.report.weights_bytes >= DEPTH * WIDTH
    linked = tmp_path / "linked.onnx"
    linked.write_bytes(path.read_bytes())
    with pytest.raises(SegQuantError, match=r"TensorRT-RTX (refuses|cannot read)"):
        build(linked)


@needs_rtx
def test_dynamic_inputs_need_a_profile_and_get_it() -> None:
    data = serialized(batch="batch")
    with pytest.raises(SegQuantError, match="input 'x' has axes of unknown length"):
        build(data)
    ranges = ShapeRange(
        minimum=(1, ROWS, DEPTH), optimum=(2, ROWS, DEPTH), maximum=(8, ROWS, DEPTH)
    )
    report = build(data, profiles=[{"x": ranges}]).report
    assert prove(report, products_of(model()))["site"].integer
    assert any(-1 in use.dims for layer in report.layers for use in layer.outputs)


@needs_rtx
@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"y": ShapeRange.fixed(1)}, "'y', which is no input.*\n.*inputs are x"),
        ({"x": ShapeRange.fixed(1, ROWS)}, r"do not fit the graph's \[2, 64, 256\]"),
        ({"x": ShapeRange.fixed(1, ROWS, DEPTH)}, r"\[1, 64, 256\] to \[1, 64, 256\]"),
    ],
)
def test_profiles_must_fit_the_graph(profile, message: str) -> None:
    with pytest.raises(SegQuantError, match=message):
        build(serialized(), profiles=[profile])


@pytest.mark.parametrize(
    ("low", "usual", "high"),
    [((2,), (1,), (3,)), ((1,), (4,), (3,)), ((1, 1), (1,), (1,)), ((0,), (1,), (1,))],
)
def test_shapes_of_a_profile_are_in_order(low, usual, high) -> None:
    with pytest.raises(SegQuantError, match="no range of shapes"):
        ShapeRange(minimum=low, optimum=usual, maximum=high)


@needs_rtx
@pytest.mark.parametrize(
    ("capability", "message"),
    [
        ("sm_90", "builds nothing for sm_90, a data-centre GPU(.|\n)*package 'tensorrt'"),
        ("sm_100", "data-centre"),
        ("sm_103", "data-centre"),
        ("sm_88", f"no compute capability(.|\n)*{', '.join(CAPABILITIES)}"),
        ("SM89", "no compute capability"),
    ],
)
def test_other_gpus_are_refused_by_name(capability: str, message: str) -> None:
    with pytest.raises(SegQuantError, match=message):
        build_each(serialized(), capabilities=("sm_89", capability))


@needs_rtx
@pytest.mark.parametrize("capability", ["sm_75", "sm_80", "sm_86"])
def test_fp8_is_refused_before_ada(capability: str) -> None:
    with pytest.raises(SegQuantError, match=f"GPUs of {capability} have no FP8"):
        build(serialized(code="fp8"), capability=capability)


@needs_rtx
def test_a_refused_graph_gives_the_first_error_with_its_node() -> None:
    graph = Graph()
    x, scale = graph.input("x", 2, ROWS, DEPTH), graph.number(0.05)
    three = graph.constant(np.int8(3))
    coded = graph.op("QuantizeLinear", x, scale, three, name="coding")
    data = graph.model(graph.op("DequantizeLinear", coded, scale, three)).SerializeToString()
    with pytest.raises(SegQuantError, match=r"node 'coding' \(QuantizeLinear\).*Non-zero zero"):
        build(data)


@needs_rtx
@pytest.mark.parametrize("data", [b"\x08\x99garbage", b"\xff" * 64])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(SegQuantError, match="is no ONNX model"):
        build(data)


@needs_rtx
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match=r"absent\.onnx cannot be read"):
        build(tmp_path / "absent.onnx")


@needs_rtx
def test_a_missing_plugin_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match=r"absent\.so"):
        build(serialized(), plugins=[tmp_path / "absent.so"])


@needs_rtx
def test_an_unknown_operator_is_named() -> None:
    graph = Graph()
    y = graph.op("Frobnicate", graph.input("x", 2, 3), name="odd", domain="nowhere")
    with pytest.raises(SegQuantError, match=r"(?s)odd.*Frobnicate"):
        build(graph.model(y).SerializeToString())


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_MODULE", "no_such_module_as_this")
    assert available() is None
    with pytest.raises(MissingDependencyError, match=r"segquant-trt\[rtx\]"):
        build(serialized())


CHILD = "segquant_trt.backends.tensorrt.rtx.child"


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Put a program in the place of the child; `request` is its job, `log` its log's path."""
    script = tmp_path / "child.py"
    script.write_text(
        "import json, os, pathlib, sys, time\n"
        "request = json.load(sys.stdin)\n"
        "log = pathlib.Path(request['folder']) / (request['capabilities'][0] + '.log')\n" + body
    )
    start = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        assert command[1:] == ["-m", CHILD]
        return start([sys.executable, str(script)], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(builder, "available", lambda: "1.7")
    monkeypatch.setattr(builder.subprocess, "Popen", popen)


def test_a_crash_quotes_the_errors_that_the_log_has(monkeypatch, tmp_path: Path) -> None:
    body = "log.write_text('[V] fine\\n[E] node seven is odd\\n'); os.kill(os.getpid(), 11)"
    pretend(monkeypatch, tmp_path, body)
    with pytest.raises(SegQuantError, match=r"crashed.*sm_89 \(killed by signal 11\)") as caught:
        build(serialized())
    assert "node seven is odd" in caught.value.what
    assert "fine" not in caught.value.what


def test_a_child_that_ends_without_a_word_is_an_error(monkeypatch, tmp_path: Path) -> None:
    pretend(monkeypatch, tmp_path, "print('last words', file=sys.stderr); sys.exit(3)")
    with pytest.raises(SegQuantError, match=r"(?s)exit status 3.*last words"):
        build(serialized())


def test_the_child_is_gone_when_the_parent_is_interrupted(monkeypatch, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = (
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "print(json.dumps({'step': [1, 6]}), flush=True); time.sleep(60)"
    )
    pretend(monkeypatch, tmp_path, body)

    class Interrupting(Watched):
        def update(self, label: str, done: int, total: int | None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(serialized(), progress=Interrupting())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@needs_rtx
def test_the_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(deep_model())
    code = (
        "import sys, pathlib; from segquant_trt.backends.tensorrt.rtx import build\n"
        f"build(pathlib.Path({str(tmp_path / 'model.onnx')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    child = wait_for(lambda: children(parent.pid), 30)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in child), 10)


def deep_model() -> bytes:
    """Many layers: seconds of work for the builder."""
    graph = Graph(TensorProto.FLOAT16)
    x = graph.input("x", 2, ROWS, DEPTH)
    for index in range(300):
        data = graph.pair(x, 0.05 + index * 1e-4)
        y = graph.op("MatMul", data, graph.weight(DEPTH, DEPTH, axis=1), name=f"site{index}")
        x = graph.op("Add", graph.op("Tanh", y), x)
    return graph.model(x).SerializeToString()


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if int(fields[1]) == parent and CHILD.encode() in words:
                found.append(int(entry.name))
    return found


def wait_for(condition, seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("waited in vain")
