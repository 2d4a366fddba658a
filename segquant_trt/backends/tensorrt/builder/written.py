"""What a build leaves behind: the engine, its record, and its layers, all written atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segquant_trt.backends.tensorrt.builder.plugin_libraries import load_libraries
from segquant_trt.backends.tensorrt.builder.weights_digest import weights_digest
from segquant_trt.backends.tensorrt.inspector import inspect_engine, parse_inspection
from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import to_plain
from segquant_trt.records.engine import BuildOptions, EngineInfo, EngineTensor, PluginLibrary
from segquant_trt.records.files import (
    atomic_write,
    atomic_write_bytes,
    atomic_write_json,
    sha256_file,
)
from segquant_trt.records.layer_report import LayerReport

if TYPE_CHECKING:
    import tensorrt as trt

    from segquant_trt.backends.tensorrt.builder.request import BuildRequest, Prepared
    from segquant_trt.backends.tensorrt.installed import Installed

# TensorRT's names of types by NumPy's or ml_dtypes'.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "FP4": "float4_e2m1fn",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT4": "int4",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine of a request: its record, its layers, and the inspector's own words."""

    request: BuildRequest
    info: EngineInfo
    report: LayerReport
    inspection: str


def examine_engine(
    tensorrt: Installed,
    prepared: Prepared,
    plan: memoryview,
    plugins: Sequence[PluginLibrary],
    seconds: float,
) -> BuiltEngine:
    """What can be said of an engine that was just built; nothing is written.

    Args:
        tensorrt: what built it.
        prepared: from which request.
        plan: the serialised engine.
        plugins: libraries that it was built with.
        seconds: how long that took.

    Raises:
        SegQuantError: TensorRT cannot read its own engine.
    """
    engine = _load_own_engine(tensorrt, prepared.request.options, plan)
    text = inspect_engine(tensorrt.module, engine)
    info = _info(tensorrt, prepared, plan, plugins, engine)
    report = LayerReport(
        builder="tensorrt",
        version=tensorrt.version,
        capability="sm_" + "".join(map(str, tensorrt.device.compute_capability)),
        engine_bytes=len(plan),
        weights_bytes=prepared.preview.estimate.weights_bytes,
        scratch_bytes=info.device_memory_bytes or 0,
        seconds=seconds,
        layers=parse_inspection(text).layers,
        warnings=tuple(tensorrt.log.warnings),
    )
    return BuiltEngine(request=prepared.request, info=info, report=report, inspection=text)


def write_engine(built: BuiltEngine, plan: memoryview) -> None:
    """Write the engine, its layers and its record, the record last.

    Raises:
        SegQuantError: a file cannot be written.
    """
    with atomic_write(built.request.engine) as stream:
        stream.write(plan)
    atomic_write_bytes(built.request.layers_path, built.inspection.encode())
    atomic_write_json(built.request.info_path, to_plain(built.info))


def _load_own_engine(
    tensorrt: Installed, options: BuildOptions, plan: memoryview
) -> trt.ICudaEngine:
    runtime: trt.Runtime = tensorrt.module.Runtime(tensorrt.log.logger(tensorrt.module))
    runtime.engine_host_code_allowed = options.version_compatible  # it is our own
    if not options.serialize_plugins:
        # Those of the builder are the builder's alone.
        load_libraries(tensorrt, runtime.get_plugin_registry(), options.plugins)
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise SegQuantError(
            f"TensorRT {tensorrt.version} built an engine that it cannot read: "
            f"{tensorrt.log.reason()}",
            hint="free memory on the GPU and build again; --verbose-log keeps all lines",
        )
    return engine


def _info(
    tensorrt: Installed,
    prepared: Prepared,
    plan: memoryview,
    plugins: Sequence[PluginLibrary],
    engine: trt.ICudaEngine,
) -> EngineInfo:
    options, device = prepared.request.options, tensorrt.device
    return EngineInfo(
        tensorrt=tensorrt.version,
        gpu=device.name,
        compute_capability=device.capability,
        driver=device.driver,
        cuda=".".join(map(str, device.cuda)),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        engine_bytes=len(plan),
        onnx_sha256=sha256_file(prepared.request.onnx),
        weights_sha256=(
            weights_digest(prepared.model, prepared.request.folder)
            if options.refit == "identical"
            else None
        ),
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        weights_stripped=options.strip_weights,
        weight_streaming=options.weight_streaming,
        refit=options.refit,
        profiles=prepared.preview.profiles,
        tensors=engine_tensors(tensorrt.module, engine),
        plugins=() if options.serialize_plugins else tuple(plugins),
        device_memory_bytes=int(engine.device_memory_size_v2),
        command=prepared.preview.portable_command,
    )


def engine_tensors(module: Any, engine: trt.ICudaEngine) -> tuple[EngineTensor, ...]:
    """Inputs and outputs of an engine, in its order."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(_tensor(module, engine, name) for name in names)


def _tensor(module: Any, engine: trt.ICudaEngine, name: str) -> EngineTensor:
    dtype = engine.get_tensor_dtype(name).name
    is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
    return EngineTensor(
        name=name,
        mode="input" if is_input else "output",
        dtype=DTYPES.get(dtype, dtype),
        shape=tuple(int(length) for length in engine.get_tensor_shape(name)),
    )
