"""How TensorRT behaves when it builds one small graph: answers for the fake module."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PLAN = b"a serialised engine"
STEPS = (("Building", "", 2), ("Tactics", "Building", 3))


def layers(node: str, dtype: str, version: str, *, tensors: Sequence[str] = ("x", "y")) -> str:
    """The inspector's JSON of an engine with one product, as this version writes it."""
    old = version.startswith("10")

    def tensor(name: str, kind: str) -> dict[str, Any]:
        spoken = {"Name": name, "Location": "Device", "Dimensions": [-1, 64]}
        if old:
            return spoken | {"Format/Datatype": f"Row major linear {kind} format"}
        return spoken | {"Format": "Row major linear", "DataType": kind}

    layer = {
        "Name": f"{node}_gemm", "LayerType": "gemm", "Inputs": [tensor("codes", dtype)],
        "Outputs": [tensor("y", "FP16")], "TacticName": "sm90_xmma_gemm_i8f16", "StreamId": 0,
        "Metadata": f"[ONNX Layer: {node}]\x1e[ONNX Layer: bias]",
    }  # fmt: skip
    return json.dumps({"Layers": [layer], "Bindings" if old else "I/O Tensors": list(tensors)})


def host_memory(world: Any, data: bytes) -> Any:
    """Memory of TensorRT's own that holds this."""
    memory = world.new("IHostMemory")
    memory.extend(data)
    return memory


def built(
    world: Callable[[], Any],
    inputs: Mapping[str, tuple[int, ...]],
    *,
    outputs: Mapping[str, tuple[int, ...]],
    text: str,
    plan: bytes | None = PLAN,
    parser_errors: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Answers of a build that ends with `plan` (None: TensorRT gives up)."""
    both = {**inputs, **outputs}

    def tensor(name: str) -> Any:
        made = world().new("ITensor")
        made.__dict__.update({"=name": name, "=shape": both[name]})
        return made

    def error(index: int) -> Any:
        made = world().new("ParserError")
        made.__dict__["index"] = index
        return made

    def told(key: str) -> Any:
        return lambda this: parser_errors[this.__dict__["index"]][key]

    def serialize(this: Any, network: Any, config: Any, **_: Any) -> Any:
        monitor = config.progress_monitor
        for name, parent, steps in STEPS:
            monitor.phase_start(name, parent, steps)
        for step in range(3):
            if not monitor.step_complete("Tactics", step):
                return None
        monitor.phase_finish("Tactics")
        for step in range(2):
            if not monitor.step_complete("Building", step):
                return None
        monitor.phase_finish("Building")
        return None if plan is None else host_memory(world(), plan)

    names = list(both)
    return {
        "OnnxParser.parse": lambda this, model, path=None: not parser_errors,
        "OnnxParser.num_errors": len(parser_errors),
        "OnnxParser.get_error": lambda this, index: error(index),
        **{f"ParserError.{key}": told(key) for key in (parser_errors or ({},))[0]},
        "INetworkDefinition.num_outputs": len(outputs),
        "INetworkDefinition.num_inputs": len(inputs),
        "INetworkDefinition.get_input": lambda this, index: tensor(list(inputs)[index]),
        "Builder.build_serialized_network": serialize,
        "EngineInspector.get_engine_information": text,
        "ICudaEngine.num_io_tensors": len(names),
        "ICudaEngine.get_tensor_name": lambda this, index: names[index],
        "ICudaEngine.get_tensor_shape": lambda this, name: both[name],
        "ICudaEngine.get_tensor_mode": lambda this, name: getattr(
            world().classes["TensorIOMode"], "INPUT" if name in inputs else "OUTPUT"
        ),
        "ICudaEngine.get_tensor_dtype": lambda this, name: world().classes["DataType"].HALF,
        "ICudaEngine.device_memory_size_v2": 4096,
    }
