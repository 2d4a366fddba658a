"""One execution context of an engine: shapes, buffers, a stream, and a CUDA graph if wanted.

Without graphs the caller's memory is read and fresh memory is written, both by pointer: nothing
is copied. A graph has its addresses baked in, so with graphs inputs are copied into buffers that
stay (not those that already lie there), and answers out of them.

A graph belongs to the shapes that the context had: after a change the context runs once as it is,
which lets TensorRT do what it defers, and the next call is captured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from segquant_trt.backends.tensorrt.runtime.accelerator import Accelerator, Replay
from segquant_trt.backends.tensorrt.runtime.load import LoadedEngine
from segquant_trt.backends.tensorrt.runtime.profiles import choose_profile
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import shape_text

if TYPE_CHECKING:
    import tensorrt as trt
    import torch

Tensors = Mapping[str, "torch.Tensor"]
Key = tuple[tuple[str, tuple[int, ...]], ...]


def key_of(inputs: Tensors) -> Key:
    """What decides the kernels of a call: shapes by input."""
    return tuple(sorted((name, tuple(tensor.shape)) for name, tensor in inputs.items()))


class EngineContext:
    """Used by one thread at a time; several contexts of one engine run side by side.

    Args:
        loaded: the engine.
        accelerator: where it runs.
        cuda_graphs: replay calls of the same shapes as one launch.

    Raises:
        SegQuantError: TensorRT cannot make a context, for want of memory mostly.
    """

    def __init__(
        self, loaded: LoadedEngine, accelerator: Accelerator, *, cuda_graphs: bool = False
    ) -> None:
        self._loaded = loaded
        self._accelerator = accelerator
        self._cuda_graphs = cuda_graphs
        self._stream = accelerator.make_stream()
        self._context: trt.IExecutionContext = _make(loaded)
        self._profile: int | None = None
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._graph: _Graph | None = None
        self.key: Key | None = None

    def run(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        """Queue one call behind the work of the caller's stream; the host does not wait.

        Args:
            inputs: checked tensors on the device, contiguous, of the engine's types.

        Raises:
            SegQuantError: the shapes are in no profile, or TensorRT fails.
        """
        key = key_of(inputs)
        if key != self.key:
            self._reshape(key, inputs)
        if self._cuda_graphs:
            return self._run_graph(inputs)
        outputs = self._empty_outputs()
        with self._accelerator.ordered(self._stream):
            self._point({**inputs, **outputs})
            self._enqueue()
        for tensor in (*inputs.values(), *outputs.values()):
            self._accelerator.share(tensor, self._stream)
        return outputs

    def synchronize(self) -> None:
        """Wait for everything that was queued."""
        self._accelerator.synchronize(self._stream)

    def _reshape(self, key: Key, inputs: Tensors) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        profile = choose_profile(self._loaded.profiles, shapes)
        self.key = self._graph = None  # unless all of what follows is done
        if profile != self._profile:
            handle = self._accelerator.handle(self._stream)
            self._check(
                self._context.set_optimization_profile_async(profile, handle),
                f"profile {profile} cannot be chosen",
            )
            self._profile = profile
        for name, shape in shapes.items():
            self._check(
                self._context.set_input_shape(name, shape),
                f"input '{name}' cannot have shape {shape_text(shape)}",
            )
        missing = self._context.infer_shapes()
        self._check(not missing, f"shapes are missing for {', '.join(missing)}")
        self._output_shapes = {each.name: self._shape(each.name) for each in self._loaded.outputs}
        self.key = key

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(length) for length in self._context.get_tensor_shape(name))
        if -1 in shape:
            raise SegQuantError(
                f"the shape of output '{name}' depends on values, which this runtime does not "
                "serve",
                hint="export the model without operators such as NonZero",
            )
        return shape

    def _empty_outputs(self) -> dict[str, torch.Tensor]:
        return {
            each.name: self._accelerator.empty(self._output_shapes[each.name], each.dtype)
            for each in self._loaded.outputs
        }

    def _point(self, tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            address = tensor.data_ptr()
            if self._addresses.get(name) != address:
                self._check(
                    self._context.set_tensor_address(name, address),
                    f"'{name}' cannot be read or written at address {address:#x}",
                )
                self._addresses[name] = address

    def _enqueue(self) -> None:
        queued = self._context.execute_async_v3(self._accelerator.handle(self._stream))
        self._check(queued, "the engine cannot be executed")

    def _run_graph(self, inputs: Tensors) -> dict[str, torch.Tensor]:
        graph = self._graph
        if graph is None:
            held = {
                name: self._accelerator.empty(tuple(tensor.shape), _dtype(tensor))
                for name, tensor in inputs.items()
            }
            graph = self._graph = _Graph(held, self._empty_outputs())
            for tensor in (*graph.inputs.values(), *graph.outputs.values()):
                self._accelerator.share(tensor, self._stream)
        answers = self._empty_outputs()
        with self._accelerator.ordered(self._stream):
            for name, tensor in inputs.items():
                if tensor.data_ptr() != graph.inputs[name].data_ptr():
                    graph.inputs[name].copy_(tensor, non_blocking=True)
            self._replay(graph)
            for name, tensor in answers.items():
                tensor.copy_(graph.outputs[name], non_blocking=True)
        for tensor in (*inputs.values(), *answers.values()):
            self._accelerator.share(tensor, self._stream)
        return answers

    def _replay(self, graph: _Graph) -> None:
        self._point({**graph.inputs, **graph.outputs})
        if not graph.warm:
            self._enqueue()
            graph.warm = True
            return
        if graph.replay is None:
            graph.replay = self._accelerator.capture(self._stream, self._enqueue)
        graph.replay()

    def _check(self, done: bool, what: str) -> None:
        if not done:
            log = self._loaded.tensorrt.log
            reason = log.reason()
            log.clear()  # the next failure has reasons of its own
            raise SegQuantError(
                f"{what}: {reason}",
                hint="check shapes and free memory of the GPU; a call that failed on the GPU "
                "leaves it unusable until the program starts again",
            )


class _Graph:
    """Memory with fixed addresses, and what replays the calls on it once it was captured."""

    def __init__(self, inputs: Tensors, outputs: Tensors) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.warm = False
        self.replay: Replay | None = None


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _make(loaded: LoadedEngine) -> trt.IExecutionContext:
    engine: trt.ICudaEngine = loaded.engine
    context: trt.IExecutionContext | None = engine.create_execution_context()
    if context is None:
        needed = int(engine.device_memory_size_v2)
        raise SegQuantError(
            f"TensorRT cannot make an execution context, which takes {needed / 2**20:.0f} MiB: "
            f"{loaded.tensorrt.log.reason()}",
            hint="ask for fewer contexts, free the GPU, or build with smaller --maxShapes",
        )
    return context
