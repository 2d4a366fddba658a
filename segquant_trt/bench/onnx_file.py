"""A plain ONNX file on a CPU runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segquant_trt.backends import backend_for
from segquant_trt.bench.timed import HostSubject
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.records import Target


def onnx_subject(
    path: Path,
    name: str,
    *,
    target: Target,
    folder: Path | None = None,
    threads: int | None,
) -> HostSubject:
    """Open an ONNX file as it is; its first output is the answer.

    Args:
        target: the runtime.
        folder: where its external data is; beside the file when None.

    Raises:
        SegQuantError: no such file, no ONNX model, weights missing, or the runtime refuses it.
        MissingDependencyError: the runtime is not installed.
    """
    graph = load_graph(path)
    Weights(graph, path.parent if folder is None else folder).check_complete()
    output = graph.graph.output[0].name
    backend = backend_for(target)
    runner = (
        backend.open(path, threads=threads)
        if folder is None
        else backend.float_session(graph, folder, threads=threads)
    )
    for spec in runner.inputs:
        try:
            np.dtype(spec.dtype)
        except TypeError as error:
            raise SegQuantError(
                f"input '{spec.name}' of {path} is {spec.dtype}, which NumPy does not have",
                hint="give a graph whose inputs are float16, float32 or integers",
            ) from error
    return HostSubject(
        name=name,
        inputs=runner.inputs,
        denoise=lambda inputs: np.asarray(runner.run(inputs, [output])[output]),
    )
