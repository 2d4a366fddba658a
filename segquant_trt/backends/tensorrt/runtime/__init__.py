"""Loading and running engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segquant_trt.backends.tensorrt.runtime.accelerator import Accelerator, TorchCuda
from segquant_trt.backends.tensorrt.runtime.load import LoadedEngine, load_engine
from segquant_trt.backends.tensorrt.runtime.refit import give_weights, refit_engine
from segquant_trt.backends.tensorrt.runtime.session import EngineSession

__all__ = [
    "Accelerator",
    "EngineSession",
    "LoadedEngine",
    "TorchCuda",
    "load_engine",
    "open_engine",
    "refit_engine",
]


def open_engine(
    path: Path,
    *,
    onnx: Path | None = None,
    weights: Path | None = None,
    plugins: Sequence[Path] = (),
    trust: bool = False,
    contexts: int = 1,
    cuda_graphs: bool = False,
    weight_budget: int | None = None,
    device: int = 0,
) -> EngineSession:
    """Load an engine and make it callable.

    Args:
        path: the engine.
        onnx: the graph whose weights it takes; needed for engines without weights of their own.
        weights: the folder of that graph's external data; beside it when None.
        plugins: libraries that the engine needs.
        trust: it may carry code that is executed.
        contexts: calls that may run side by side.
        cuda_graphs: replay calls of the same shapes as one launch.
        weight_budget: bytes of weights that stay on the GPU, of an engine that streams them.
        device: the GPU's number.

    Raises:
        SegQuantError: as `load_engine` and `refit_engine`; or weights are missing.
    """
    loaded = load_engine(
        path,
        plugins=plugins,
        trust=trust,
        contexts=contexts,
        weight_budget=weight_budget,
        device=device,
    )
    give_weights(loaded, path, onnx, weights)
    return EngineSession(loaded, TorchCuda(device), contexts=contexts, cuda_graphs=cuda_graphs)
