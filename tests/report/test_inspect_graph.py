from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.errors import SegQuantError
from segquant_trt.records import CheckpointLocation
from segquant_trt.records.codec import write_record
from segquant_trt.report.inspect import describe


def external(name: str, offset: int, shape: tuple[int, ...], location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    length = 2 * int(np.prod(shape))
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def quantized_model(location: str = "w.safetensors") -> onnx.ModelProto:
    """x -> Q -> DQ -> MatMul(DQ(int8 weight)) -> If(cond, Relu, Neg), beside two bf16 weights."""
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.int8(0), "zero")
    weight = numpy_helper.from_array(np.ones((4, 3), np.int8), "weight")
    packed = helper.make_tensor("packed", TensorProto.INT4, (5,), [1, 2, 3, 4, 5])
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["m"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"]),
        helper.make_node("MatMul", ["d", "w"], ["m"]),
        helper.make_node("If", ["cond"], ["y"], **branches),
        helper.make_node("QGemm", ["x"], ["z"], domain="com.microsoft"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]),
            helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [scale, zero, weight, packed, external("a", 64, (8, 2), location),
         external("b", 96, (4,), location)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, producer_name="test")


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "w.safetensors").write_bytes(bytes(104))
    onnx.save(quantized_model(), tmp_path / "m.onnx")
    description = describe(tmp_path / "m.onnx")
    assert description.kind == "ONNX graph"
    assert description.notes == ()
    return description.as_dict()


def test_properties(described: dict[str, Any]) -> None:
    found = described["properties"]
    assert found["opset"] == "21, com.microsoft 1"
    assert found["nodes"] == 8
    assert found["Q/DQ pairs"] == 1
    assert found["weights behind DQ"] == 1
    assert found["integer operators"] == 1
    assert found["initializers"] == 6
    # float scale, int8 zero, 12 int8, 5 packed int4, 16 + 4 bf16
    assert found["initializer bytes"] == 4 + 1 + 12 + 3 + 32 + 8


def test_tables(described: dict[str, Any]) -> None:
    tables = described["tables"]
    assert tables["inputs"][0] == {"name": "x", "type": "float", "shape": "[batch, 4]"}
    assert tables["outputs"][0]["shape"] == "?"
    operators = {row["operator"]: row["count"] for row in tables["operators"]}
    assert operators["DequantizeLinear"] == 2
    assert operators["Relu"] == operators["com.microsoft::QGemm"] == 1
    types = {(row["type"], row["stored"]): row["bytes"] for row in tables["initializers by type"]}
    assert types["bfloat16", "external"] == 40
    assert types["int4", "inline"] == 3
    assert tables["external files"] == [
        {"file": "w.safetensors", "tensors": 2, "needed": 104, "found": 104, "state": "ok"}
    ]


@pytest.mark.parametrize(("size", "state"), [(None, "missing"), (103, "too short")])
def test_external_files_are_checked(size: int | None, state: str, tmp_path: Path) -> None:
    if size is not None:
        (tmp_path / "w.safetensors").write_bytes(bytes(size))
    onnx.save(quantized_model(), tmp_path / "m.onnx")
    (row,) = describe(tmp_path / "m.onnx").as_dict()["tables"]["external files"]
    assert row["state"] == state


def test_exported_graph_finds_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "w.safetensors").write_bytes(bytes(104))
    onnx.save(quantized_model(), tmp_path / "model.onnx")
    location = CheckpointLocation(
        folder=str(tmp_path / "checkpoint"), pipeline_folder=None, mtime_ns={}, inode={}
    )
    write_record(tmp_path / "model.location.yaml", location)
    (row,) = describe(tmp_path / "model.onnx").as_dict()["tables"]["external files"]
    assert row["state"] == "ok"


def test_graph_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(quantized_model("../w").SerializeToString())
    with pytest.raises(SegQuantError, match=r"points to '\.\./w'"):
        describe(tmp_path / "m.onnx")


def test_truncated_graph_is_refused(tmp_path: Path) -> None:
    whole = quantized_model().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SegQuantError, match=r"m\.onnx is not a readable ONNX model"):
        describe(tmp_path / "m.onnx")
