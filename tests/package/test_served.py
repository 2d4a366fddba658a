"""What runs inside a server answers like `load`, bit by bit, and needs nothing of the package."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.backends import onnxruntime
from segquant_trt.backends.onnxruntime import OnnxRuntime
from segquant_trt.errors import SegQuantError
from segquant_trt.package.example import write_arrays
from segquant_trt.package.repository import CONFIG
from segquant_trt.package.served.calls import CallError, answers
from segquant_trt.package.served.graphs import ServedGraphs
from segquant_trt.package.served.sessions import int8_sums_are_exact, open_graph
from segquant_trt.serve import load
from tests.package.bundles import BUNDLES, Call, calls_of
from tests.shared import LazyFolders

KINDS = tuple(BUNDLES)
BATCHED = ("plain", "four_bits", "shared", "frozen", "refusing", "hoisted", "hoisted_alone")


def as_sent(kind: str, call: Call) -> Call:
    """A call as the server hands it over: shared inputs have a row per sample."""
    if kind != "shared":
        return dict(call)
    return {**call, "ids": np.repeat(call["ids"][None], len(call["x"]), axis=0)}


def graphs_of(repository: Path, kind: str, **options: int) -> ServedGraphs:
    return ServedGraphs(repository / kind / "1", threads=1, **options)


HOISTED = ("hoisted", "hoisted_alone")
KEPT = [(kind, 0) for kind in KINDS] + [(kind, 8) for kind in HOISTED]


@pytest.mark.parametrize(("kind", "kept"), KEPT)
def test_calls_one_by_one(
    kind: str, kept: int, bundles: LazyFolders, repositories: LazyFolders
) -> None:
    direct = load(bundles[kind] / "bundle", threads=1)
    graphs = graphs_of(repositories[kind], kind, kept_prompts=kept)
    for call in calls_of(kind):
        (found,) = answers(graphs, [as_sent(kind, call)])
        assert isinstance(found, np.ndarray), found
        np.testing.assert_array_equal(found, direct.run(call))
    every = len(calls_of(kind)) if kind in HOISTED else 0
    assert graphs.prompt_runs == (direct.prompt_runs if kept else every)


@pytest.mark.parametrize(("kind", "kept"), KEPT)
def test_calls_together(
    kind: str, kept: int, bundles: LazyFolders, repositories: LazyFolders
) -> None:
    """Of several sizes, steps, prompts and shared inputs: each gets what is its own."""
    direct = load(bundles[kind] / "bundle", threads=1)
    calls = calls_of(kind)
    graphs = graphs_of(repositories[kind], kind, kept_prompts=kept)
    found = answers(graphs, [as_sent(kind, call) for call in calls])
    assert len(found) == len(calls)
    for answer, call in zip(found, calls, strict=True):
        assert isinstance(answer, np.ndarray), answer
        np.testing.assert_array_equal(answer, direct.run(call))


@pytest.mark.parametrize("kind", BATCHED)
def test_calls_that_fit_are_one_batch(
    kind: str, repositories: LazyFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = graphs_of(repositories[kind], kind)
    run, sizes = graphs.run, []
    monkeypatch.setattr(graphs, "run", lambda inputs: sizes.append(len(inputs["x"])) or run(inputs))
    one = calls_of(kind)[1]
    answers(graphs, [as_sent(kind, one)] * 3)
    assert sizes == [3 * len(one["x"])]


def test_calls_on_and_off_the_steps_never_meet(
    repositories: LazyFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = graphs_of(repositories["frozen"], "frozen")
    run, seen = graphs.run, []
    monkeypatch.setattr(graphs, "run", lambda given: seen.append(given["when"]) or run(given))
    call = calls_of("frozen")[0]
    times = [981.0, 700.0, 7.5, 3.0]
    answers(graphs, [{**call, "when": np.array([time], "f4")} for time in times])
    assert [list(batch) for batch in seen] == [[981.0, 7.5], [700.0, 3.0]]


def test_a_call_that_fails_fails_alone(repositories: LazyFolders) -> None:
    graphs = graphs_of(repositories["refusing"], "refusing")
    good = calls_of("refusing")[0]
    off = {**good, "when": np.full_like(good["when"], 700.0)}
    found = answers(graphs, [good, off, {"x": good["x"]}, good])
    np.testing.assert_array_equal(found[0], found[3])
    assert isinstance(found[1], CallError)
    assert "timestep 700 is not among the 6" in found[1].what
    assert isinstance(found[2], CallError)
    assert "'when' is missing" in found[2].what


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": np.zeros((1, 4, 160), "f8")}, "'x' has dtype float64; allowed: float32"),
        ({"x": np.zeros((1, 4, 161), "f4")}, "'x' has shape (1, 4, 161)"),
        ({"x": np.zeros((4, 160), "f4")}, "'x' has shape (4, 160)"),
        ({"x": np.zeros((1, 5, 160), "f4")}, "tokens 5; allowed: 2 to 16 in multiples of 2"),
        ({"x": np.zeros((9, 4, 160), "f4")}, "batch 9; allowed: 1 to 8"),
        ({"ids": np.zeros((1, 6, 160), "f4")}, "'ids' has tokens 6, but 'x' has tokens 4"),
        ({"ids": np.arange(2.0, dtype="f4").repeat(640).reshape(2, 4, 160)}, "'ids' differs"),
        ({"ids": np.zeros((), "f4")}, "'ids' differs"),
        ({"ids": np.zeros((0, 4, 160), "f4")}, "'ids' differs"),
    ],
)
def test_refusals(repositories: LazyFolders, changes: Call, words: str) -> None:
    graphs = graphs_of(repositories["shared"], "shared")
    good = {"x": np.zeros((1, 4, 160), "f4"), "ids": np.zeros((1, 4, 160), "f4")}
    (found,) = answers(graphs, [good | changes])
    assert isinstance(found, SegQuantError)
    assert words in found.what


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_prompts_are_kept_up_to_the_number_asked_for(repositories: LazyFolders, kept: int) -> None:
    graphs = graphs_of(repositories["hoisted"], "hoisted", kept_prompts=kept)
    calls = calls_of("hoisted", 2)
    for call in (*calls, *calls):
        answers(graphs, [call])
    assert graphs.prompt_runs == {0: 4, 1: 4, 2: 2}[kept]
    assert len(graphs._kept._values) == kept


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "probe.npz"])
def test_an_altered_file_is_not_served(bundles: LazyFolders, tmp_path: Path, name: str) -> None:
    from segquant_trt.package import ServingOptions, package_bundle
    from segquant_trt.serve.integrity import checked_manifest

    bundle = bundles["plain"] / "bundle"
    manifest = checked_manifest(bundle)
    package_bundle(bundle, manifest, tmp_path / "out", ServingOptions(name="plain"))
    path = tmp_path / "out" / "plain" / "1" / "graphs" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SegQuantError, match=rf"{name} was altered"):
        graphs_of(tmp_path / "out", "plain")
    path.unlink()
    with pytest.raises(SegQuantError, match=rf"{name} cannot be read"):
        graphs_of(tmp_path / "out", "plain")


# What Triton's Python backend gives to a model, and nothing of this package or its dependencies.
STAND_IN = """
import sys, json, types
import numpy as np
from pathlib import Path

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("segquant_trt", "onnx", "cattrs", "torch", "yaml", "scipy"):
            raise ImportError(name + " is not to be imported here")

sys.meta_path.insert(0, Blocker())
repository, model, config, calls, out = sys.argv[1:]
backend = types.ModuleType("triton_python_backend_utils")

class Tensor:
    def __init__(self, name, array):
        self.name, self.array = name, array
    def as_numpy(self):
        return self.array

class Response:
    def __init__(self, output_tensors=(), error=None):
        self.tensors, self.error = output_tensors, error

class Logger:
    @staticmethod
    def log_warn(text):
        print("warning:", text)


class TritonError(str):
    INVALID_ARG, INTERNAL = 3, 1
    def __new__(cls, text, code):
        assert code == cls.INVALID_ARG
        return super().__new__(cls, text)

backend.Tensor, backend.InferenceResponse, backend.TritonError = Tensor, Response, TritonError
backend.Logger = Logger
backend.get_input_tensor_by_name = lambda request, name: request.get(name)
sys.modules[backend.__name__] = backend
sys.path.insert(0, str(Path(repository) / "1"))
from model import TritonPythonModel

served = TritonPythonModel()
served.initialize(
    {"model_repository": repository, "model_version": "1", "model_name": model,
     "model_config": config}
)
with np.load(calls) as stored:
    whole = {name: Tensor(name, stored[name]) for name in stored.files}
good, bad = served.execute([whole, {}])
assert good.error is None, good.error
assert "is missing" in bad.error and "hint: " in bad.error, bad.error
assert not bad.tensors
np.save(out, good.tensors[0].array)
print("answered", good.tensors[0].name)
"""


@pytest.mark.parametrize("kind", ["four_bits", "frozen", "hoisted"])
def test_the_model_runs_without_the_package(
    kind: str, bundles: LazyFolders, repositories: LazyFolders, tmp_path: Path
) -> None:
    call = calls_of(kind)[0]
    np.savez(tmp_path / "call.npz", **call)
    text = (repositories[kind] / kind / CONFIG).read_text()
    assert 'key: "threads"' in text
    values = {"threads": {"string_value": "1"}, "kept_prompts": {"string_value": "8"}}
    result = subprocess.run(
        [sys.executable, "-c", STAND_IN, repositories[kind] / kind, kind,
         json.dumps({"parameters": values}), tmp_path / "call.npz", tmp_path / "out.npy"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == "answered y\n"
    wanted = load(bundles[kind] / "bundle", threads=1).run(call)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)


def test_a_failing_runtime_is_no_fault_of_the_call(
    repositories: LazyFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the batch is told, and none as if it were wrong."""
    graphs = graphs_of(repositories["plain"], "plain")

    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("bad allocation\nmore")

    monkeypatch.setattr(graphs._main, "_session", Broken())
    found = answers(graphs, [calls_of("plain")[0]] * 2)
    for one in found:
        assert isinstance(one, SegQuantError)
        assert not isinstance(one, CallError)
        assert one.what.endswith("bad allocation")
        assert "x float32[2, 4, 160]" in one.what


class Captured(Exception):
    """Instead of a session."""


def options_of(open_it: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The session options that a call of ONNX Runtime is given."""
    import onnxruntime

    found: list[Any] = []

    def capture(_: object, options: Any, *__: object, **___: object) -> None:
        found.append(options)
        raise Captured("no session")

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", capture)
        with pytest.raises(SegQuantError, match="no session"):
            open_it()
    return found[0]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_sessions_are_the_backends(
    repositories: LazyFolders, monkeypatch: pytest.MonkeyPatch, exact: bool, threads: int
) -> None:
    """Bits would differ, or sums saturate, where an option did."""
    path = repositories["plain"] / "plain" / "1" / "graphs" / "model.onnx"
    monkeypatch.setattr(onnxruntime, "_int8_sums_are_exact", lambda: exact)
    theirs = options_of(lambda: OnnxRuntime().open(path, threads=threads), monkeypatch)
    ours = options_of(lambda: open_graph(path, threads=threads, exact=exact), monkeypatch)
    plain = [name for name in dir(theirs) if not name.startswith("_")]
    values = {name: getattr(theirs, name) for name in plain if not callable(getattr(theirs, name))}
    assert {name: getattr(ours, name) for name in values} == values
    assert values["use_deterministic_compute"] is True
    source = inspect.getsource(onnxruntime)
    keys = set(re.findall(r'"(session\.\w+)"', source))
    assert len(keys) >= 3
    for key in keys:
        try:
            wanted = theirs.get_session_config_entry(key)
        except RuntimeError:  # not set there
            continue
        assert ours.get_session_config_entry(key) == wanted


def test_the_probe_says_what_the_backend_says(repositories: LazyFolders, tmp_path: Path) -> None:
    graphs = repositories["plain"] / "plain" / "1" / "graphs"
    assert int8_sums_are_exact(graphs) is onnxruntime._int8_sums_are_exact()


@pytest.mark.parametrize("output", ["convolution0_y", "linear1_y"])
def test_the_probe_finds_saturated_sums(
    repositories: LazyFolders, tmp_path: Path, output: str
) -> None:
    """Sums that are off by a hundredth."""
    graphs = repositories["plain"] / "plain" / "1" / "graphs"
    with np.load(graphs / "probe.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    assert f"sums:{output}" in arrays
    (tmp_path / "probe.onnx").write_bytes((graphs / "probe.onnx").read_bytes())
    write_arrays(tmp_path / "probe.npz", arrays)
    right = int8_sums_are_exact(tmp_path)
    arrays[f"sums:{output}"] = arrays[f"sums:{output}"] * 1.01
    write_arrays(tmp_path / "probe.npz", arrays)
    assert int8_sums_are_exact(tmp_path) is False
    assert right is onnxruntime._int8_sums_are_exact()


def test_prompts_differ_by_content_and_by_samples(repositories: LazyFolders) -> None:
    graphs = graphs_of(repositories["hoisted"], "hoisted", kept_prompts=8)
    call = calls_of("hoisted")[0]
    changed = {**call, "text": call["text"].copy()}
    changed["text"][0, 0, 0] += 1
    copied = {name: array.copy() for name, array in call.items()}
    for one in (call, changed, copied, call):
        answers(graphs, [one])
    assert graphs.prompt_runs == 2
    more = {**call, "when": np.repeat(call["when"], 2)}
    assert graphs._key(more) != graphs._key(call)


@pytest.mark.parametrize("kind", HOISTED)
def test_calls_with_kept_prompts_stay_whole(
    kind: str, repositories: LazyFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = graphs_of(repositories[kind], kind, kept_prompts=8)
    run, sizes = graphs.run, []
    monkeypatch.setattr(graphs, "run", lambda inputs: sizes.append(len(inputs["x"])) or run(inputs))
    call = calls_of(kind)[0]
    answers(graphs, [call] * 3)
    assert sizes == [len(call["x"])] * 3
    assert graphs.prompt_runs == 1
