"""Four-bit weights are widened where their product is one of codes, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.backends.widening import widen_int4

CODES = np.array([[-8, 7, 0], [3, -1, 5], [1, 2, -4], [6, -7, 4]], dtype=np.int8)


def product(made_with: tuple[str, ...], axis: int | None) -> onnx.ModelProto:
    """x [2, 4] times 4-bit weights [4, 3]; x in codes made with these tensors, if any."""
    scales = {
        "step": np.array(0.1, dtype=np.float32),
        "zero": np.array(128, dtype=np.uint8),
        "steps": np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32),
        "zeros": np.full(4, 128, dtype=np.uint8),
        "scale": np.array([0.5, 0.25, 0.125], dtype=np.float32),
    }
    nodes = [helper.make_node("DequantizeLinear", ["w", "scale", "none"], ["wide"], axis=1)]
    source = "x"
    if made_with:
        encode = helper.make_node("QuantizeLinear", ["x", *made_with], ["codes"])
        if axis is not None:
            encode.attribute.append(helper.make_attribute("axis", axis))
        nodes += [encode, helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["y"])]
        source = "y"
    nodes.append(helper.make_node("MatMul", [source, "wide"], ["product"]))
    stored = [numpy_helper.from_array(array, name) for name, array in scales.items()]
    stored += [
        helper.make_tensor("w", TensorProto.INT4, CODES.shape, CODES.ravel()),
        helper.make_tensor("none", TensorProto.INT4, (3,), np.zeros(3, dtype=np.int8)),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", (2, 4)), ("product", (2, 3)))
    ]
    graph = helper.make_graph(nodes, "g", *ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


@pytest.mark.parametrize(
    ("made_with", "axis"),
    [(("step", "zero"), None), (("steps", "zeros"), 1)],
    ids=["one scale", "a scale per channel"],
)
def test_weights_of_coded_inputs_become_int8(
    made_with: tuple[str, ...], axis: int | None, tmp_path: Path
) -> None:
    model = product(made_with, axis)
    arrays = widen_int4(model, tmp_path)
    np.testing.assert_array_equal(arrays["w"], CODES)
    np.testing.assert_array_equal(arrays["none"], np.zeros(3, dtype=np.int8))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert (types["w"], types["none"]) == (TensorProto.INT8, TensorProto.INT8)


def test_weights_of_float_inputs_stay_packed(tmp_path: Path) -> None:
    model = product((), None)
    before = model.SerializeToString()
    assert widen_int4(model, tmp_path) == {}
    assert model.SerializeToString() == before
