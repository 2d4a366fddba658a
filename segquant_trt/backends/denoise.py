"""A float graph on disk as a function from named inputs to the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.backends.base import Array
from segquant_trt.backends.hoisting import open_whole
from segquant_trt.backends.onnxruntime import float_session, literal_session
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.hoisted_stamp import prompt_path

Denoise = Callable[[Mapping[str, Array]], npt.NDArray[np.float32]]


def float_denoise(
    model: Path | onnx.ModelProto,
    weights_folder: Path,
    *,
    threads: int | None = None,
    lean: bool = False,
) -> Denoise:
    """The float32 denoiser: ONNX Runtime on the exported graph and the stored weights.

    `lean`: with less memory, where it is not timed; see `float_session`.

    Raises:
        SegQuantError: the graph or its weights cannot be read.
    """
    graph = load_graph(model) if isinstance(model, Path) else model
    Weights(graph, weights_folder).check_complete()
    output = graph.graph.output[0].name
    session = float_session(graph, weights_folder, threads=threads, lean=lean)
    return lambda inputs: np.asarray(session.run(inputs, [output])[output], dtype=np.float32)


def literal_denoise(quantized: Path, *, threads: int | None = None) -> Denoise:
    """A rewritten graph executed as written, every Q/DQ pair in float: what the plan means.

    Raises:
        SegQuantError: the graph or its weights cannot be read.
    """
    output = load_graph(quantized).graph.output[0].name
    session = open_whole(
        quantized, prompt_path(quantized), lambda path: literal_session(path, threads=threads)
    )
    return lambda inputs: np.asarray(session.run(inputs, [output])[output], dtype=np.float32)
