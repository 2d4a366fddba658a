"""An engine that any thread may call: several contexts, given out to whoever needs one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from segquant_trt.backends.base import Array
from segquant_trt.backends.tensorrt.runtime.accelerator import Accelerator
from segquant_trt.backends.tensorrt.runtime.context import EngineContext, Key, key_of
from segquant_trt.backends.tensorrt.runtime.load import LoadedEngine
from segquant_trt.errors import SegQuantError
from segquant_trt.records import TensorSpec
from segquant_trt.records.engine import EngineTensor

if TYPE_CHECKING:
    import torch


class EngineSession:
    """A `Runner` on a GPU; `run_tensors` is the way without copies.

    Args:
        loaded: the engine.
        accelerator: where it runs.
        contexts: calls that may run side by side; each takes memory for activations.
        cuda_graphs: replay calls of the same shapes as one launch.
    """

    def __init__(
        self,
        loaded: LoadedEngine,
        accelerator: Accelerator,
        *,
        contexts: int = 1,
        cuda_graphs: bool = False,
    ) -> None:
        if contexts < 1:
            raise SegQuantError(
                f"an engine cannot be run with {contexts} contexts", hint="ask for at least one"
            )
        self._loaded = loaded
        self._accelerator = accelerator
        self._most = contexts
        self._cuda_graphs = cuda_graphs
        self._made = 0
        self._free: list[EngineContext] = []
        self._waiting = threading.Condition()
        self._closed = False
        self.inputs: tuple[TensorSpec, ...] = tuple(_spec(each) for each in loaded.inputs)

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None
    ) -> dict[str, Array]:
        """Outputs by name from arrays on the host; waits for the answer.

        Raises:
            SegQuantError: an input is missing, unknown, of another type or of a shape out of range.
        """
        device = self._accelerator.device
        given = {name: _to_torch(array).to(device) for name, array in inputs.items()}
        found = self.run_tensors(given, outputs)
        return {name: _to_numpy(tensor.cpu()) for name, tensor in found.items()}

    def run_tensors(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Outputs by name from tensors on the GPU, in order with the caller's stream.

        Args:
            inputs: PyTorch's tensors, or anything that speaks DLPack; read where they lie.
            outputs: names; all when None.

        Raises:
            SegQuantError: an input is missing, unknown, elsewhere, of another type or of a shape
                out of range; or an output is unknown.
        """
        names = self._wanted(outputs)
        checked = self._checked(inputs)
        with self._accelerator.guard(), self._lease(key_of(checked)) as context:
            found = context.run(checked)
        return {name: found[name] for name in names}

    def close(self) -> None:
        """Give the contexts' memory back; waits for calls that are running."""
        with self._waiting:
            self._closed = True
            while len(self._free) < self._made:
                self._waiting.wait()
            for context in self._free:
                context.synchronize()
            self._free.clear()
            self._made = 0
            self._waiting.notify_all()

    @contextmanager
    def _lease(self, key: Key) -> Iterator[EngineContext]:
        context = self._take(key)
        try:
            yield context
        finally:
            with self._waiting:
                self._free.append(context)
                self._waiting.notify_all()

    def _take(self, key: Key) -> EngineContext:
        """A free context, one that already has these shapes if there is, else one more."""
        with self._waiting:
            while not self._closed:
                alike = [each for each in self._free if each.key == key]
                if alike or (self._free and self._made == self._most):
                    chosen = alike[-1] if alike else self._free[0]
                    self._free.remove(chosen)
                    return chosen
                if self._made < self._most:
                    made = EngineContext(
                        self._loaded, self._accelerator, cuda_graphs=self._cuda_graphs
                    )
                    self._made += 1
                    return made
                self._waiting.wait()
        raise SegQuantError("the engine has been closed", hint="load it again")

    def _wanted(self, outputs: Sequence[str] | None) -> list[str]:
        known = [each.name for each in self._loaded.outputs]
        for name in outputs or ():
            if name not in known:
                raise SegQuantError(
                    f"the engine has no output '{name}'", hint=f"it has {', '.join(known)}"
                )
        return known if outputs is None else list(outputs)

    def _checked(self, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        wanted = {each.name: each for each in self._loaded.inputs}
        for name in inputs:
            if name not in wanted:
                raise SegQuantError(
                    f"the engine has no input '{name}'", hint=f"it has {', '.join(wanted)}"
                )
        for name in wanted:
            if name not in inputs:
                raise SegQuantError(
                    f"input '{name}' is missing", hint=f"the engine needs {', '.join(wanted)}"
                )
        return {name: self._tensor(wanted[name], inputs[name]) for name in wanted}

    def _tensor(self, wanted: EngineTensor, given: Any) -> torch.Tensor:
        import torch

        tensor = given if isinstance(given, torch.Tensor) else torch.utils.dlpack.from_dlpack(given)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype != wanted.dtype:
            raise SegQuantError(
                f"input '{wanted.name}' is {dtype}; the engine takes {wanted.dtype}",
                hint=f"pass {wanted.name}.to(torch.{wanted.dtype})",
            )
        if tensor.device != self._accelerator.device:
            raise SegQuantError(
                f"input '{wanted.name}' is on {tensor.device}; the engine is on "
                f"{self._accelerator.device}",
                hint=f"pass {wanted.name}.to('{self._accelerator.device}')",
            )
        return tensor.detach().contiguous()


def _spec(tensor: EngineTensor) -> TensorSpec:
    shape = tuple(
        length if length >= 0 else f"{tensor.name}.{axis}"
        for axis, length in enumerate(tensor.shape)
    )
    return TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=shape)


def _to_torch(array: Array) -> torch.Tensor:
    import torch

    array = np.array(array, order="C")  # writeable, as PyTorch wants it
    if array.dtype.name == "bfloat16":  # NumPy's extension type: its bits are taken
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_numpy(tensor: torch.Tensor) -> Array:
    import torch

    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
