"""Every name of TensorRT that the sources use is in every version from 10.9 to the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

import segquant_trt
from tests.contract.tensorrt.fake import VERSIONS, load_snapshot
from tests.contract.tensorrt.usage import Walker, walked

PACKAGE = Path(segquant_trt.__file__).parent
# What the builder and the runtime cannot do without, in places that only types lead to.
EXPECTED = {
    "Builder.build_serialized_network", "Builder.get_plugin_registry", "IBuilderConfig.set_flag",
    "BuilderFlag.REFIT_IDENTICAL", "IBuilderConfig.progress_monitor=", "OnnxParser.parse",
    "ParserError.node_name", "ITimingCache.combine", "IPluginRegistry.load_library",
    "EngineInspector.get_engine_information", "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "Runtime.deserialize_cuda_engine", "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_optimization_profile_async", "ICudaEngine.get_tensor_profile_shape",
    "OnnxParserRefitter.refit_from_bytes", "Refitter.refit_cuda_engine",
    "ICudaEngine.weight_streaming_budget_v2=",
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists(version: str) -> None:
    walker = walked(version, PACKAGE)
    assert [str(fault) for fault in walker.faults] == []
    assert walker.uses >= EXPECTED


def test_names_that_11_removed_are_not_used() -> None:
    used = walked(VERSIONS[0], PACKAGE).uses
    old, new = (load_snapshot(VERSIONS[index])["classes"] for index in (0, -1))
    removed = {
        f"{name}.{member}"
        for name, entry in old.items()
        for kind in ("members", "methods", "properties")
        for member in entry.get(kind, {})
        if member not in new.get(name, {}).get(kind, {})
    }
    assert {"BuilderFlag.INT8", "ICudaEngine.device_memory_size"} <= removed
    assert not used & removed


WRONG = {
    "a method": ("config: trt.IBuilderConfig", "config.set_flagg(1)", "set_flagg"),
    "a flag of 10": ("module", "module.BuilderFlag.INT8", "BuilderFlag.INT8"),
    "through a variable": ("module", "flags = module.BuilderFlag\n    flags.FP16", "FP16"),
    "a property": ("config: trt.IBuilderConfig", "config.int8_calibrator = 1", "int8_calibrator"),
    "a read-only one": ("engine: trt.ICudaEngine", "engine.num_layers = 1", "cannot be set"),
    "arguments": ("config: trt.IBuilderConfig", "config.set_flag(1, 2)", "takes"),
    "a keyword": ("network: trt.INetworkDefinition", "network.get_input(number=1)", "takes"),
    "what a method returns": (
        "builder: trt.Builder", "config = builder.create_builder_config()\n    config.nothing",
        "IBuilderConfig.nothing",
    ),
    "a constructor's object": ("module", "module.Runtime(1).deserialise(b'')", "deserialise"),
    "an annotation": ("x: trt.IInt8Calibrator", "pass", "IInt8Calibrator"),
    "one of two types": ("p: trt.OnnxParser | trt.Refitter", "p.num_errors", "Refitter.num_errors"),
    "within a lambda": ("config: trt.IBuilderConfig", "f = lambda: config.nothing()", "nothing"),
    "an inner function": (
        "config: trt.IBuilderConfig", "def inner():\n        return config.nothing()", "nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_uses_are_found(case: str) -> None:
    parameter, body, told = WRONG[case]
    walker = Walker(VERSIONS[-1])
    walker.walk(f"def use({parameter}):\n    {body}\n", "made_up.py")
    assert [told in str(fault) for fault in walker.faults] == [True]


def test_right_uses_are_not_complained_of() -> None:
    walker = Walker(VERSIONS[-1])
    walker.walk(
        "def use(module, network: trt.INetworkDefinition):\n"
        "    builder = module.Builder(1)\n"
        "    config = builder.create_builder_config()\n"
        "    config.set_flag(flag=module.BuilderFlag.REFIT)\n"
        "    return builder.build_serialized_network(network, config).nbytes\n",
        "made_up.py",
    )
    assert not walker.faults
    assert {"IHostMemory.nbytes", "BuilderFlag.REFIT"} <= walker.uses
