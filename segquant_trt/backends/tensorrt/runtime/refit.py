"""Gives an engine its weights: those that were stripped from it, or new ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.backends.tensorrt.builder.network import parser_messages
from segquant_trt.backends.tensorrt.builder.weights_digest import weights_digest
from segquant_trt.backends.tensorrt.runtime.load import LoadedEngine
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph

if TYPE_CHECKING:
    import tensorrt as trt


def give_weights(
    loaded: LoadedEngine, path: Path, onnx: Path | None, weights: Path | None = None
) -> None:
    """Refit where a graph is given; an engine without weights needs one.

    Raises:
        SegQuantError: as `refit_engine`; or the engine at `path` has no weights and gets none.
    """
    if onnx is not None:
        refit_engine(loaded, onnx, weights)
    elif loaded.info is not None and loaded.info.weights_stripped:
        raise SegQuantError(
            f"{path} was built without its weights, and no graph is given that has them",
            hint="pass onnx=..., the graph that it was built from",
        )


def refit_engine(loaded: LoadedEngine, onnx: Path, weights: Path | None = None) -> None:
    """Fill an engine with the weights of a graph, before any context of it is made.

    Args:
        loaded: an engine that was built for it.
        onnx: the graph that it was built from, or of one form with it.
        weights: the folder of its external data; beside the graph when None.

    Raises:
        SegQuantError: the engine was not built for refitting; it takes identical weights only and
            these are others; or TensorRT misses some.
    """
    engine: trt.ICudaEngine = loaded.engine
    folder = weights or onnx.parent
    if not engine.refittable:
        raise SegQuantError(
            "this engine was not built for taking weights",
            hint="build it with refit 'identical' or 'any'",
        )
    _check_identical(loaded, onnx, folder)
    log, module = loaded.tensorrt.log, loaded.tensorrt.module
    log.clear()
    refitter: trt.Refitter = module.Refitter(engine, log.logger(module))
    parser: trt.OnnxParserRefitter = module.OnnxParserRefitter(refitter, log.logger(module))
    if not parser.refit_from_bytes(onnx.read_bytes(), str(folder / "model.onnx")):
        reasons = parser_messages(parser) or [log.reason()]
        raise SegQuantError(
            f"TensorRT cannot take the weights of {onnx}: {'; '.join(reasons[:5])}",
            hint="give the graph that the engine was built from",
        )
    missing = refitter.get_missing_weights()
    if missing:
        shown = ", ".join(str(name) for name in missing[:5])
        raise SegQuantError(
            f"{onnx} lacks {len(missing)} weight(s) that the engine needs: {shown}",
            hint="give the graph that the engine was built from",
        )
    if not refitter.refit_cuda_engine():
        raise SegQuantError(
            f"TensorRT cannot refit the engine: {log.reason()}",
            hint="free memory on the GPU, and load the engine again",
        )


def _check_identical(loaded: LoadedEngine, onnx: Path, folder: Path) -> None:
    info = loaded.info
    if info is None or info.weights_sha256 is None:
        return
    if weights_digest(load_graph(onnx), folder) != info.weights_sha256:
        raise SegQuantError(
            f"the weights of {onnx} are not those that the engine was built with, and it takes "
            "identical ones only: with others it would compute something else",
            hint="give the weights that it was built with, or build with refit 'any'",
        )
