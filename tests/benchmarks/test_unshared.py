"""Stored codes get one reader each, and the graph computes the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.ablation.unshared import unshared

WIDTH = 7


def shared_model() -> onnx.ModelProto:
    random = np.random.default_rng(3)
    stored = {
        "codes": random.integers(-127, 128, (WIDTH, WIDTH)).astype(np.int8),
        "scale": random.uniform(0.01, 0.02, WIDTH).astype(np.float32),
        "zero": np.zeros(WIDTH, dtype=np.int8),
        "left": np.ones(3, dtype=np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["v"], axis=1),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("x", kind, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", kind, ["n", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_every_stored_code_has_one_reader_and_the_numbers_stay() -> None:
    import onnxruntime

    model = shared_model()
    changed = unshared(model)
    onnx.checker.check_model(changed)
    readers = Counter(name for node in changed.graph.node for name in node.input)
    stored = {tensor.name for tensor in changed.graph.initializer}
    assert stored
    assert all(readers[name] == 1 for name in stored)
    x = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    found = [
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (model, changed)
    ]
    assert np.array_equal(*found)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    onnxruntime.InferenceSession(changed.SerializeToString(), options)


def test_what_nobody_reads_is_dropped() -> None:
    assert "left" in {tensor.name for tensor in shared_model().graph.initializer}
    assert "left" not in {tensor.name for tensor in unshared(shared_model()).graph.initializer}
