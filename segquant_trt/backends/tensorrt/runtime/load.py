"""Loading an engine: everything that can be checked is, before TensorRT constructs anything."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.backends.tensorrt.builder.plugin_libraries import (
    check_libraries,
    load_libraries,
)
from segquant_trt.backends.tensorrt.builder.written import engine_tensors
from segquant_trt.backends.tensorrt.installed import Installed, installed
from segquant_trt.backends.tensorrt.runtime.engine_file import (
    check_file,
    check_fits,
    check_free_memory,
    check_plugins,
    check_trust,
    read_info,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import EngineInfo, EngineTensor, ShapeProfile, ShapeRange

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """An engine on the GPU. `runtime` is kept because the engine needs it to stay."""

    tensorrt: Installed
    runtime: trt.Runtime
    engine: trt.ICudaEngine
    info: EngineInfo | None
    tensors: tuple[EngineTensor, ...]
    profiles: tuple[ShapeProfile, ...]

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Tensors that the caller gives."""
        return tuple(each for each in self.tensors if each.mode == "input")

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Tensors that the engine answers with."""
        return tuple(each for each in self.tensors if each.mode == "output")


def load_engine(
    path: Path,
    *,
    plugins: Sequence[Path] = (),
    trust: bool = False,
    contexts: int = 1,
    weight_budget: int | None = None,
    device: int = 0,
    tensorrt: Installed | None = None,
) -> LoadedEngine:
    """Load an engine.

    Args:
        path: the engine; its record is beside it if this program built it.
        plugins: libraries that it needs.
        trust: it may carry code that is executed.
        contexts: how many execution contexts will be made of it.
        weight_budget: bytes of weights that stay on the GPU, of an engine that streams them.
        device: the GPU's number.
        tensorrt: the installed one when None.

    Raises:
        SegQuantError: the file is missing, cut off or changed; it is for another GPU, driver or
            TensorRT; a plugin is missing or for another machine; memory does not suffice; or
            TensorRT refuses it.
    """
    info = read_info(path)
    check_file(path, info)
    check_trust(path, info, trust=trust)
    tensorrt = tensorrt or installed(device)
    check_libraries(plugins, tensorrt.device)
    if info is not None:
        check_fits(path, info, tensorrt.version, tensorrt.device)
        check_plugins(path, info, plugins)
        check_free_memory(path, info, tensorrt.device, contexts, weight_budget)
    tensorrt.log.clear()
    with _on(device):
        runtime = make_runtime(tensorrt)
        runtime.engine_host_code_allowed = trust
        load_libraries(tensorrt, runtime.get_plugin_registry(), plugins)
        engine = _deserialized(tensorrt, runtime, path)
        if weight_budget is not None:
            _set_budget(engine, weight_budget)
    return LoadedEngine(
        tensorrt=tensorrt,
        runtime=runtime,
        engine=engine,
        info=info,
        tensors=_checked_tensors(tensorrt.module, engine),
        profiles=engine_profiles(tensorrt.module, engine),
    )


def _on(device: int) -> AbstractContextManager[None]:
    """TensorRT works on the thread's current device, which PyTorch chooses."""
    import torch

    if not torch.cuda.is_available():
        return nullcontext()
    guard: AbstractContextManager[None] = torch.cuda.device(device)
    return guard


def make_runtime(tensorrt: Installed) -> trt.Runtime:
    """TensorRT's runtime; only after the device was checked, for it crashes without one.

    Raises:
        SegQuantError: TensorRT cannot make one.
    """
    try:
        runtime: trt.Runtime | None = tensorrt.module.Runtime(tensorrt.log.logger(tensorrt.module))
    except (TypeError, RuntimeError) as error:  # pybind11's words for a null pointer
        raise _no_runtime(tensorrt) from error
    if runtime is None:
        raise _no_runtime(tensorrt)
    return runtime


def _no_runtime(tensorrt: Installed) -> SegQuantError:
    return SegQuantError(
        f"TensorRT {tensorrt.version} cannot start on {tensorrt.device.name}: "
        f"{tensorrt.log.reason()}",
        hint="check that the driver fits this TensorRT, and that the GPU is not in use exclusively",
    )


def _deserialized(tensorrt: Installed, runtime: trt.Runtime, path: Path) -> trt.ICudaEngine:
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    with data, memoryview(data) as view:  # pages are read as TensorRT copies them to the GPU
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(view)
    if engine is None:
        raise SegQuantError(
            f"TensorRT {tensorrt.version} refuses {path}: {tensorrt.log.reason()}",
            hint="it is no engine, or one for another TensorRT, GPU or with plugins that are not "
            "given; `trtexec --getPlanVersionOnly --loadEngine=...` tells its version",
        )
    return engine


def _set_budget(engine: trt.ICudaEngine, budget: int) -> None:
    most = int(engine.streamable_weights_size)
    if most == 0:
        raise SegQuantError(
            "this engine does not stream weights, so a weight budget means nothing to it",
            hint="leave weight_budget out, or build with --allowWeightStreaming",
        )
    if not 0 <= budget <= most:
        raise SegQuantError(
            f"weight_budget is {budget} bytes; this engine streams 0 to {most}",
            hint="choose a number in this range",
        )
    engine.weight_streaming_budget_v2 = budget
    if engine.weight_streaming_budget_v2 != budget:
        raise SegQuantError(
            f"TensorRT does not take {budget} bytes as this engine's weight budget",
            hint="set it before contexts are made, and leave room for activations",
        )


def _checked_tensors(module: Any, engine: trt.ICudaEngine) -> tuple[EngineTensor, ...]:
    tensors = engine_tensors(module, engine)
    for tensor in tensors:
        if engine.get_tensor_location(tensor.name) == module.TensorLocation.HOST:
            raise SegQuantError(
                f"the engine's {tensor.mode} '{tensor.name}' is a shape on the host, which this "
                "runtime does not serve",
                hint="export the model without inputs that are shapes",
            )
    return tensors


def engine_profiles(module: Any, engine: trt.ICudaEngine) -> tuple[ShapeProfile, ...]:
    """What shapes each profile allows of each input; one profile of an engine without any."""
    names = [each.name for each in engine_tensors(module, engine) if each.mode == "input"]
    return tuple(
        ShapeProfile(inputs=tuple(_bounds(engine, name, index) for name in names))
        for index in range(max(engine.num_optimization_profiles, 1))
    )


def _bounds(engine: trt.ICudaEngine, name: str, index: int) -> ShapeRange:
    shapes = [tuple(int(x) for x in dims) for dims in engine.get_tensor_profile_shape(name, index)]
    minimum, optimum, maximum = shapes
    return ShapeRange(name=name, minimum=minimum, optimum=optimum, maximum=maximum)
