"""What running an engine asks of PyTorch: memory, streams, graphs. Small, so that it can be faked.

The implementation on `torch.cuda` has not been executed on a GPU so far; what calls it is tested
with one on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from segquant_trt.errors import SegQuantError

if TYPE_CHECKING:
    import torch

Replay = Callable[[], None]


class Accelerator(Protocol):
    """Where engines run."""

    @property
    def device(self) -> torch.device:
        """Where tensors have to be."""

    def guard(self) -> AbstractContextManager[None]:
        """This thread's calls go to the device; TensorRT takes the one that is current."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Memory of the device; `dtype` is NumPy's name."""

    def make_stream(self) -> Any:
        """A stream of its own."""

    def handle(self, stream: Any) -> int:
        """The stream as TensorRT takes it."""

    def ordered(self, stream: Any) -> AbstractContextManager[None]:
        """Work on `stream` comes after what the caller's stream holds, and before what follows."""

    def share(self, tensor: torch.Tensor, stream: Any) -> None:
        """`stream` uses memory of the caller's, which is not to be given away before it is done."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Replay:
        """Record what `work` puts on `stream`, without executing it."""

    def synchronize(self, stream: Any) -> None:
        """Wait for everything on `stream`."""


class TorchCuda:
    """`torch.cuda` on one GPU.

    Raises:
        SegQuantError: this PyTorch has no CUDA.
    """

    def __init__(self, index: int = 0) -> None:
        import torch

        if not torch.cuda.is_available():
            raise SegQuantError(
                f"PyTorch {torch.__version__} here cannot use CUDA, and engines take their "
                "inputs from it",
                hint="install PyTorch with CUDA: https://pytorch.org/get-started/locally",
            )
        self._torch = torch
        self.device = torch.device("cuda", index)
        self._capturing = threading.Lock()

    def guard(self) -> AbstractContextManager[None]:
        """Make the device current."""
        guard: AbstractContextManager[None] = self._torch.cuda.device(self.device)
        return guard

    def empty(self, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        """Memory of the device."""
        return self._torch.empty(shape, dtype=getattr(self._torch, dtype), device=self.device)

    def make_stream(self) -> Any:
        """A stream of its own."""
        stream: Any = self._torch.cuda.Stream
        return stream(device=self.device)

    def handle(self, stream: Any) -> int:
        """`cudaStream_t` as a number."""
        return int(stream.cuda_stream)

    @contextmanager
    def ordered(self, stream: Any) -> Iterator[None]:
        """Make the two streams wait for each other; the host waits for neither."""
        callers = self._torch.cuda.current_stream(self.device)
        stream.wait_stream(callers)
        with self._torch.cuda.stream(stream):
            yield
        callers.wait_stream(stream)

    def share(self, tensor: torch.Tensor, stream: Any) -> None:
        """Tell PyTorch's allocator."""
        tensor.record_stream(stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Replay:
        """A CUDA graph. One thread captures at a time, while others go on calling."""
        cuda = self._torch.cuda
        graph = cuda.CUDAGraph()
        with (
            self._capturing,
            cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            work()
        replay: Replay = graph.replay
        return replay

    def synchronize(self, stream: Any) -> None:
        """Wait for everything on `stream`."""
        stream.synchronize()
