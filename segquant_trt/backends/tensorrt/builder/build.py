"""From an ONNX graph to an engine on disk, its record, and the proof of its precisions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from segquant_trt.backends.tensorrt.builder.config import make_config
from segquant_trt.backends.tensorrt.builder.forecast import check_memory
from segquant_trt.backends.tensorrt.builder.monitor import BuildMonitor, tensorrt_monitor
from segquant_trt.backends.tensorrt.builder.network import input_shapes, make_network
from segquant_trt.backends.tensorrt.builder.plugin_libraries import (
    check_libraries,
    load_libraries,
)
from segquant_trt.backends.tensorrt.builder.request import BuildRequest, Prepared, prepare
from segquant_trt.backends.tensorrt.builder.timing_cache import attach, keep
from segquant_trt.backends.tensorrt.builder.written import BuiltEngine, examine_engine, write_engine
from segquant_trt.backends.tensorrt.device import check_precisions
from segquant_trt.backends.tensorrt.inspector import check_sites, prove_sites
from segquant_trt.backends.tensorrt.installed import Installed, installed, open_log
from segquant_trt.backends.tensorrt.rtx.prove import EngineProof, products_of
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import BuildOptions
from segquant_trt.records.progress import Progress, Silent

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """An engine, how each planned site of it is computed, and which ones not in 8 bits."""

    engine: BuiltEngine
    proofs: Mapping[str, EngineProof]
    fallen: tuple[str, ...]


def build_engine(
    request: BuildRequest,
    *,
    tensorrt: Installed | None = None,
    progress: Progress | None = None,
) -> BuildResult:
    """Build, write and prove an engine. Ctrl-C ends it with the timings kept.

    Args:
        request: what is to be built.
        tensorrt: the installed one, on the first GPU, when None.
        progress: told of each step, and of the share of the build that is done.

    Raises:
        SegQuantError: there is no usable GPU or TensorRT, the graph is refused, the engine would
            not fit, or a planned site is not computed in 8 bits.
        KeyboardInterrupt: it was interrupted.
    """
    progress = progress or Silent()
    tensorrt = tensorrt or installed()
    prepared = prepare(request, tensorrt.device, tensorrt.version)
    options = prepared.request.options
    check_precisions(tensorrt.device.compute_capability, prepared.preview.precisions)
    plugins = check_libraries(options.plugins, tensorrt.device)
    if tensorrt.device.free_bytes is not None:
        estimate, device = prepared.preview.estimate, tensorrt.device
        check_memory(estimate, device.name, tensorrt.device.free_bytes, options)
    with _verbose_log(tensorrt, prepared):
        started = time.monotonic()
        plan = _serialized(tensorrt, prepared, progress)
        seconds = time.monotonic() - started
        progress.note("reading the engine's layers")
        built = examine_engine(tensorrt, prepared, plan, plugins, seconds)
    sites = products_of(prepared.model)
    proofs = prove_sites(built.report, sites)
    fallen = check_sites(proofs, allow_fallback=options.allow_fallback)
    for text in fallen:
        progress.note(f"not in 8 bits: {text}")
    write_engine(built, plan)
    return BuildResult(engine=built, proofs=proofs, fallen=fallen)


@contextmanager
def _verbose_log(tensorrt: Installed, prepared: Prepared) -> Iterator[None]:
    path = prepared.request.options.verbose_log
    tensorrt.log.clear()
    if path is None:
        yield
        return
    with open_log(path) as stream:
        tensorrt.log.stream = stream
        try:
            yield
        finally:
            tensorrt.log.stream = None


def make_builder(tensorrt: Installed) -> trt.Builder:
    """TensorRT's builder; only after the device was checked.

    Raises:
        SegQuantError: TensorRT cannot make one.
    """
    try:
        builder: trt.Builder | None = tensorrt.module.Builder(tensorrt.log.logger(tensorrt.module))
    except (TypeError, RuntimeError) as error:  # pybind11's words for a null pointer
        raise _no_builder(tensorrt) from error
    if builder is None:
        raise _no_builder(tensorrt)
    return builder


def _no_builder(tensorrt: Installed) -> SegQuantError:
    return SegQuantError(
        f"TensorRT {tensorrt.version} cannot start on {tensorrt.device.name}: "
        f"{tensorrt.log.reason()}",
        hint="check that the driver fits this TensorRT, and that the GPU is not in use exclusively",
    )


def _serialized(tensorrt: Installed, prepared: Prepared, progress: Progress) -> memoryview:
    request, options = prepared.request, prepared.request.options
    builder = make_builder(tensorrt)
    load_libraries(tensorrt, builder.get_plugin_registry(), options.plugins)
    progress.note("reading the graph")
    network, parser = make_network(tensorrt, builder, request.onnx.read_bytes(), request.folder)
    config = make_config(tensorrt.module, builder, options, input_shapes(network))
    if options.version_compatible:
        config.plugins_to_serialize = _to_serialize(options, parser)
    cache = options.timing_cache if options.use_timing_cache else None
    if cache is not None:
        attach(config, cache, progress)
    monitor = BuildMonitor(progress)
    # The configuration keeps no reference of its own.
    steps = tensorrt_monitor(tensorrt.module, monitor)
    config.progress_monitor = steps
    progress.note(f"the same with trtexec: {prepared.preview.command}")
    tensorrt.log.forget_errors()  # those of a cache, say, are not why the build fails
    try:
        memory = _interruptible(
            lambda: builder.build_serialized_network(network, config), monitor, progress
        )
    finally:
        if cache is not None:
            keep(config, cache)
    if monitor.failure is not None:
        raise monitor.failure
    if monitor.cancelled:
        raise KeyboardInterrupt
    if memory is None:
        raise _not_built(tensorrt, prepared)
    monitor.complete()
    # The buffer is TensorRT's own, described as floats of one byte: engines are not copied.
    return memoryview(memory).cast("B")


def _to_serialize(options: BuildOptions, parser: trt.OnnxParser) -> list[str]:
    """Libraries that a portable engine carries: the user's, and TensorRT's own plugins."""
    own = [str(path.resolve()) for path in options.plugins] if options.serialize_plugins else []
    return list(dict.fromkeys([*own, *parser.get_used_vc_plugin_libraries()]))


def _interruptible(call: Callable[[], T], monitor: BuildMonitor, progress: Progress) -> T:
    """Run `call`, which hears of no signal, on a thread of its own while this one listens."""
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()  # after a signal `Thread.join` may return too early

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed to the caller's thread
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="tensorrt-build", daemon=True).start()
    try:
        while not done.wait(_WAIT_S):
            pass
    except KeyboardInterrupt:
        monitor.cancel()
        progress.note(
            "stopping after the kernel that is being timed, to keep the timings; "
            "Ctrl-C again stops at once"
        )
        done.wait()
    if errors:
        raise errors[0]
    return results[0]


_MEMORY = ("out of memory", "outofmemory", "insufficient memory", "insufficient workspace")


def _not_built(tensorrt: Installed, prepared: Prepared) -> SegQuantError:
    reason = tensorrt.log.reason()
    hint = "'segquant-trt lint' names rules that a graph breaks; --verbose-log keeps all lines"
    if any(word in reason.lower() for word in _MEMORY):
        hint = "lower --maxShapes or --memPoolSize=workspace:..., or free the GPU"
    return SegQuantError(
        f"TensorRT {tensorrt.version} cannot build {prepared.request.onnx} for "
        f"{tensorrt.device.name}: {reason}",
        hint=hint,
    )
