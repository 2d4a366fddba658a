"""One process that builds all probes of a test session, a tenth of a second each."""

from __future__ import annotations

import functools
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from segquant_trt.backends.tensorrt.rtx import available
from segquant_trt.backends.tensorrt.rtx.network import BuildJob, build_in_process, make_logger
from segquant_trt.backends.tensorrt.rtx.prove import kernels
from segquant_trt.backends.tensorrt.rtx.report import report_of
from segquant_trt.errors import SegQuantError
from segquant_trt.records.layer_report import Layer, LayerReport

needs_rtx = pytest.mark.skipif(
    available() is None, reason="TensorRT-RTX is not installed (pip install 'segquant-trt[rtx]')"
)


def built(model: onnx.ModelProto, capability: str = "sm_89") -> tuple[LayerReport, bytes]:
    """Report and engine of a graph whose inputs have fixed shapes."""
    done = _process().submit(_build, model.SerializeToString(), capability).result(timeout=120)
    if isinstance(done, _Refusal):
        raise SegQuantError(done.what, hint=done.hint)
    return done


def reported(model: onnx.ModelProto, capability: str = "sm_89") -> LayerReport:
    return built(model, capability)[0]


def launched(report: LayerReport) -> list[str]:
    """What the report's kernels are, in order."""
    return [_word(layer) for layer in kernels(report)]


def _word(layer: Layer) -> str:
    if layer.name.startswith("_gemm_mha"):
        return f"attention {layer.inputs[0].dtype}"
    if layer.kind in ("gemm", "correlation", "deconv"):
        return f"{layer.kind} {layer.inputs[0].dtype} to {layer.outputs[0].dtype}"
    return layer.kind


@dataclass(frozen=True)
class _Refusal:
    """A SegQuantError on its way between processes."""

    what: str
    hint: str


@functools.cache
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@functools.cache
def _logger() -> tuple[Any, Any]:
    import tensorrt_rtx_bindings as trt

    return trt, make_logger(trt)


def _build(data: bytes, capability: str) -> tuple[LayerReport, bytes] | _Refusal:
    try:
        return _build_here(data, capability)
    except SegQuantError as error:
        return _Refusal(error.what, error.hint)


def _build_here(data: bytes, capability: str) -> tuple[LayerReport, bytes]:
    trt, log = _logger()
    graph = onnx.load_model_from_string(data).graph
    shapes = {
        value.name: [[axis.dim_value for axis in value.type.tensor_type.shape.dim]] * 3
        for value in graph.input
    }
    with tempfile.TemporaryDirectory() as place:
        path, text = Path(place) / "model.onnx", Path(place) / "log"
        path.write_bytes(data)
        job = BuildJob(model=path, origin=path, shapes=[shapes], plugins=())
        with text.open("w", encoding="utf-8") as log.stream:
            engine, seconds = build_in_process(trt, log, job, capability, lambda done, total: None)
        report = report_of(
            text.read_text(encoding="utf-8"),
            capability=capability,
            version=trt.__version__,
            seconds=seconds,
            engine_bytes=len(engine),
        )
    return report, engine
