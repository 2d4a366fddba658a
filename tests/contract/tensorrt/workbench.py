"""A GPU, a graph and an installed TensorRT that are all made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segquant_trt.backends.tensorrt.builder.request import BuildRequest
from segquant_trt.backends.tensorrt.device import Device
from segquant_trt.backends.tensorrt.installed import Installed, Log
from segquant_trt.records.engine import BuildOptions, ShapeProfile, ShapeRange
from tests.contract.tensorrt.fake import Script, fake_tensorrt
from tests.contract.tensorrt.scenario import built, layers

WIDTH, OUT = 64, 48
GPU = Device(
    index=0, name="NVIDIA H100 PCIe", compute_capability=(9, 0), memory_bytes=80 * 2**30,
    free_bytes=79 * 2**30, driver="580.65.06", cuda=(13, 0),
)  # fmt: skip
PROFILE = ShapeProfile(
    inputs=(ShapeRange(name="x", minimum=(1, WIDTH), optimum=(8, WIDTH), maximum=(17, WIDTH)),)
)
NODE = "site0"


def small_graph(folder: Path, *, codes: int = TensorProto.INT8) -> Path:
    """y = DQ(Q(x)) W + b in float16, `x` of any number of rows; weights in a file beside it."""
    rng = np.random.default_rng(3)
    kind = helper.tensor_dtype_to_np_dtype(codes)
    weight = rng.integers(-8, 8, (WIDTH, OUT)).astype(kind)
    (folder / "weights.bin").write_bytes(weight.tobytes())
    outside = TensorProto(name="codes", dims=weight.shape, data_type=codes)
    outside.data_location = TensorProto.EXTERNAL
    place = {"location": "weights.bin", "offset": "0", "length": str(weight.nbytes)}
    for key, value in place.items():
        outside.external_data.add(key=key, value=value)
    constants = [
        outside,
        numpy_helper.from_array(np.array(0.05, np.float16), "s"),
        numpy_helper.from_array(np.zeros((), kind), "z"),
        numpy_helper.from_array(np.full(OUT, 0.01, np.float16), "ws"),
        numpy_helper.from_array(np.zeros(OUT, kind), "wz"),
        numpy_helper.from_array(np.ones(OUT, np.float16), "b"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["codes", "ws", "wz"], ["w"], axis=1),
        helper.make_node("MatMul", ["d", "w"], ["m"], name=NODE),
        helper.make_node("Add", ["m", "b"], ["y"], name="bias"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["rows", OUT])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = folder / "small.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


def request(folder: Path, *, codes: int = TensorProto.INT8, **options: Any) -> BuildRequest:
    """Build the small graph into `folder`."""
    chosen = {"profiles": (PROFILE,), "timing_cache": folder / "cache" / "t.timing"} | options
    return BuildRequest(
        onnx=small_graph(folder, codes=codes),
        engine=folder / "small.engine",
        options=BuildOptions(**chosen),
    )


def bench(
    version: str,
    answers: Mapping[str, Any] | None = None,
    *,
    dtype: str = "Int8",
    device: Device = GPU,
    **scenario: Any,
) -> tuple[Installed, Script]:
    """TensorRT of this version as installed, building the small graph."""
    script: Script
    module, script = fake_tensorrt(version)
    script.answers |= built(
        lambda: script.answers["world"],
        {"x": (-1, WIDTH)},
        outputs={"y": (-1, OUT)},
        **{"text": layers(NODE, dtype, version), **scenario},
    )
    script.answers |= dict(answers or {})
    found = Installed(module=module, version=version, device=device, log=Log())
    return found, script


def device(**changes: Any) -> Device:
    """The made-up GPU with other properties."""
    return replace(GPU, **changes)
