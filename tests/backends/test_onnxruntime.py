"""ONNX Runtime: what fuses, what is proven, and float sessions over foreign weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import helper

from segquant_trt.backends.extremes import extremes
from segquant_trt.backends.onnxruntime import OnnxRuntime, float_session, literal_session
from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import KeepFloat
from segquant_trt.rewrite import rewrite
from tests.small_graphs import (
    away_from_ties,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
    scheme_of,
)


def two_linears(folder: Path) -> Path:
    weight = full_range_weight((40, 40), 1).astype(np.float16)
    nodes = [
        *linear_nodes("first", "x", "h", bias=True, stored=True),
        *linear_nodes("second", "h", "y", bias=True, stored=True),
    ]
    weights = {f"{n}.weight": weight for n in ("first", "second")}
    weights |= {f"{n}.bias": weight[0] for n in ("first", "second")}
    return save_graph(folder / "model.onnx", nodes, {"x": ["n", "t", 40]}, ["y"], weights)


def test_a_call_that_fails_says_what_was_given(tmp_path: Path) -> None:
    session = float_session(load_graph(two_linears(tmp_path)), tmp_path)
    with pytest.raises(SegQuantError) as refused:
        session.run({"x": np.zeros((1, 2, 41), dtype=np.float32)})
    assert "x float32[1, 2, 41]" in refused.value.what


def test_an_exception_without_a_message_is_reported_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def fail(*arguments: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(SegQuantError, match="refuses the float graph: MemoryError"):
        float_session(b"", tmp_path)


def test_planned_sites_become_one_integer_kernel_each(tmp_path: Path) -> None:
    model = two_linears(tmp_path)
    facts = facts_of(model)
    rewrite(
        model, tmp_path, facts, plan_of(facts, "onnxruntime", lambda _: scheme_of("shifted")),
        tmp_path / "q.onnx",
    )  # fmt: skip
    proofs = OnnxRuntime().integer_sites(tmp_path / "q.onnx", ["first", "second"], example={})
    assert {proof.kernel for proof in proofs.values()} == {"MatMulIntegerToFloat"}


@pytest.mark.parametrize("exact", [True, False])
def test_weights_move_to_uint8_only_where_sums_are_wrong_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    """The moved ones are exact everywhere; on CPUs with VNNI they take twice the time."""
    from segquant_trt.backends import onnxruntime as backend

    monkeypatch.setattr(backend, "_int8_sums_are_exact", lambda: exact)
    model = two_linears(tmp_path)
    facts = facts_of(model)
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx")
    seen: list[str] = []
    find = backend._proofs

    def proofs(emitted: Path, optimised: Path, sites):
        seen.extend(tensor.name for tensor in load_graph(optimised).graph.initializer)
        return find(emitted, optimised, sites)

    monkeypatch.setattr(backend, "_proofs", proofs)
    found = OnnxRuntime().integer_sites(tmp_path / "q.onnx", ["first", "second"], example={})
    assert all(proof.integer for proof in found.values())
    assert any(name.endswith("_s8_2_u8") for name in seen) is not exact


def test_wrong_sums_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from segquant_trt.backends import onnxruntime as backend

    real = extremes(requantized=True)
    monkeypatch.setattr(
        backend, "_session", lambda data, options, origin: _Wrong(real.sums, real.steps)
    )
    for wrong, output in ((0.0, ""), (0.02, "linear1_y"), (0.02, "convolution3_y")):
        backend._int8_sums_are_exact.cache_clear()
        _Wrong.error, _Wrong.output = wrong, output
        assert backend._int8_sums_are_exact() is (wrong == 0.0)
    backend._int8_sums_are_exact.cache_clear()


class _Wrong:
    """A session whose sums are off at one output."""

    error, output = 0.0, ""

    def __init__(self, sums, steps) -> None:
        self._sums = sums

    def get_inputs(self) -> list:
        return []

    def get_outputs(self) -> list:
        return [type("Value", (), {"name": name}) for name in self._sums]

    def run(self, names, feeds) -> list:
        factor = {name: 1.0 - self.error * (name == self.output) for name in names}
        return [(self._sums[name] * factor[name]).astype(np.float32) for name in names]


def test_a_site_that_does_not_fuse_is_reported(tmp_path: Path) -> None:
    """A plain bias on a 2-D linear becomes a float Gemm: the reason why biases are lifted."""
    weight = full_range_weight((40, 40), 1)
    nodes = linear_nodes("fc", "x", "y", bias=True, stored=False)
    weights = {"fc.weight": np.ascontiguousarray(weight.T), "fc.bias": weight[0]}
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": ["n", 40]}, ["y"], weights)
    facts = facts_of(model)
    plan = plan_of(facts, "openvino", lambda _: scheme_of("symmetric"))
    rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx")
    proofs = OnnxRuntime().integer_sites(tmp_path / "q.onnx", ["fc", "absent"], example={})
    assert not proofs["fc"].integer
    assert proofs["fc"].kernel == "Gemm"
    assert not proofs["absent"].integer


def test_sites_kept_in_float_keep_their_numbers(tmp_path: Path) -> None:
    model = two_linears(tmp_path)
    facts = facts_of(model)
    plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
    rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx")
    x = away_from_ties((2, 3, 40), 2, low=-9, high=9)
    wanted = float_session(load_graph(model), tmp_path, threads=1).run({"x": x})["y"]
    np.testing.assert_array_equal(
        OnnxRuntime().open(tmp_path / "q.onnx", threads=1).run({"x": x})["y"], wanted
    )


def test_literal_session_is_the_plan_itself(tmp_path: Path) -> None:
    model = two_linears(tmp_path)
    facts = facts_of(model)
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    rewrite(model, tmp_path, facts, plan, tmp_path / "q.onnx")
    x = away_from_ties((2, 3, 40), 3, low=-128, high=127)
    literal = literal_session(tmp_path / "q.onnx", threads=1).run({"x": x})["y"]
    fused = OnnxRuntime().open(tmp_path / "q.onnx", threads=1).run({"x": x})["y"]
    assert np.abs(literal - fused).max() < 0.02 * np.abs(literal).max()


def test_float_session_reads_foreign_folders_and_gives_extra_outputs(tmp_path: Path) -> None:
    model = load_graph(two_linears(tmp_path))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "checkpoint" / "weights.bin")
    model.graph.output.append(onnx.ValueInfoProto(name="h"))
    runner = float_session(model, tmp_path / "checkpoint", threads=1)
    assert [spec.name for spec in runner.inputs] == ["x"]
    assert runner.inputs[0].shape == ("n", "t", 40)
    x = np.ones((1, 2, 40), np.float32)
    weight = full_range_weight((40, 40), 1).astype(np.float64)
    found = runner.run({"x": x}, ["h"])
    assert list(found) == ["h"]
    np.testing.assert_allclose(found["h"][0, 0], weight.sum(axis=1) + weight[0], rtol=1e-4)
    assert list(runner.run({"x": x})) == ["y", "h"]


def test_a_graph_that_does_not_load_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd")
    path = save_graph(tmp_path / "m.onnx", [node], {"x": ["n"]}, ["y"], {}, external=False)
    with pytest.raises(SegQuantError, match="ONNX Runtime refuses"):
        OnnxRuntime().open(path)


def test_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="'onnxruntime'"):
        float_session(b"", tmp_path)


def test_a_lean_session_holds_one_calls_memory_and_gives_the_same(tmp_path: Path) -> None:
    """Otherwise the second call would take two activations more, for good."""
    nodes = [
        node
        for i in range(6)
        for node in (
            *linear_nodes(f"fc{i}", f"x{i}", f"h{i}", bias=False, stored=False),
            helper.make_node("Gelu", [f"h{i}"], [f"x{i + 1}"], name=f"gelu{i}"),
        )
    ]
    nodes += linear_nodes("last", "x6", "y", bias=False, stored=False)
    width = 512
    weights = {f"fc{i}.weight": full_range_weight((width, width), i) for i in range(6)}
    weights["last.weight"] = full_range_weight((width, 3), 7)
    model = save_graph(tmp_path / "model.onnx", nodes, {"x0": ["n", width]}, ["y"], weights)
    x = np.random.default_rng(3).standard_normal((10_000, width)).astype(np.float32)
    process = psutil.Process()
    lean, plain = (
        float_session(load_graph(model), tmp_path, threads=1, lean=lean) for lean in (True, False)
    )
    first = lean.run({"x0": x})["y"]
    before = process.memory_info().rss
    for _ in range(2):
        np.testing.assert_array_equal(lean.run({"x0": x})["y"], first)
    assert process.memory_info().rss - before < 0.75 * x.nbytes
    np.testing.assert_array_equal(plain.run({"x0": x})["y"], first)
