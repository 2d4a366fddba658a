"""What a quantiser leaves behind, opened by the runtime that executes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.ablation.subject import Subject
from segquant_trt.backends import backend_for
from segquant_trt.backends.onnxruntime import literal_session
from segquant_trt.backends.openvino.session import Session, core
from segquant_trt.backends.openvino.split import HALF
from segquant_trt.models.loop import Array, Denoise, Float32
from segquant_trt.records import Target

_OPENVINO_SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
}
_PRODUCTS = ("FullyConnected", "MatMul", "Convolution")
_WEIGHT_STEPS = ("Transpose", "Reorder", "Reshape", "Convert")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A quantised model: an ONNX file, or OpenVINO's own format (.xml).

    `dynamic_block`: inputs of a product that OpenVINO codes together, as they come; 0: it leaves
    float activations alone. (ONNX files say so themselves.)
    """

    path: Path
    runtime: Target
    dynamic_block: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the file and of what lies beside it under the same name."""
        return sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.stem}.*"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A quantised model that is ready to run, and how much of it runs in integers."""

    denoise: Denoise
    macs_integer_share: float


def open_artifact(artifact: Artifact, subject: Subject, *, threads: int | None = None) -> Opened:
    """Open the model; the share is read from the graph that the runtime executes.

    An ONNX graph for OpenVINO computes what is written, by ONNX Runtime with nothing fused.

    Args:
        threads: of the runtime; all cores when None.
    """
    if artifact.path.suffix == ".xml" or artifact.runtime == "openvino":
        return _open_in_openvino(artifact, subject, threads)
    backend = backend_for(artifact.runtime)
    sites = [site.name for site in subject.facts.sites]
    proofs = backend.integer_sites(artifact.path, sites, example=subject.guidance_call())
    session = backend.open(artifact.path, threads=threads)
    output = onnx.load(artifact.path, load_external_data=False).graph.output[0].name
    return Opened(
        denoise=lambda inputs: _float32(session.run(inputs, [output])[output]),
        macs_integer_share=subject.share({name: proof.integer for name, proof in proofs.items()}),
    )


def _open_in_openvino(artifact: Artifact, subject: Subject, threads: int | None) -> Opened:
    if artifact.path.suffix == ".xml":
        settings = {
            **_OPENVINO_SETTINGS,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(artifact.dynamic_block),
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = str(threads)
        session: Any = Session(core().compile_model(str(artifact.path), "CPU", settings))
    else:
        session = backend_for("openvino").open(artifact.path, threads=threads)
    (output,) = session.run(subject.guidance_call()).keys()
    share = openvino_share(session.compiled, subject)
    if artifact.path.suffix == ".onnx":  # as written: OpenVINO errs on convolutions of some graphs
        session = literal_session(artifact.path, threads=threads)
    return Opened(
        denoise=lambda inputs: _float32(session.run(inputs, [output])[output]),
        macs_integer_share=share,
    )


def openvino_share(compiled: Any, subject: Subject) -> float:
    """Share of the multiplications with constant weights that integer kernels do.

    Names do not survive OpenVINO's transformations of foreign graphs, so the work of every layer
    is counted from the shapes of the executed graph, which are known after a call; it has to come
    out as the plan's.

    Args:
        compiled: a CompiledModel that was called with `subject.guidance_call()` last.
    """
    work: dict[bool, int] = {True: 0, False: 0}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: _text(value) for key, value in node.get_rt_info().items()}
        # On CPUs without VNNI every product is two, of which one is counted.
        second = HALF in info.get("originalLayersNames", "")
        if info.get("layerType") in _PRODUCTS and not second and _has_constant_weight(node):
            integer = info.get("primitiveType", "").lower().endswith("_i8")
            work[integer] += _macs(node, is_convolution=info["layerType"] == "Convolution")
    _check_work(sum(work.values()), subject)
    return work[True] / sum(work.values())


def _has_constant_weight(node: Any) -> bool:
    source = node.input_value(1).get_node()
    while _layer(source) in _WEIGHT_STEPS:
        source = source.input_value(0).get_node()
    return _layer(source) == "Const"


def _macs(node: Any, *, is_convolution: bool) -> int:
    output = _shape(node.output(0))
    weight = _shape(node.input(1))
    if is_convolution:
        return prod(output) * prod(weight) // output[1]
    return prod(output) * _shape(node.input(0))[-1]


def _check_work(found: int, subject: Subject) -> None:
    batch = len(next(iter(subject.guidance_call().values())))
    expected = batch * sum(subject.macs.values())
    if abs(found - expected) > 0.01 * expected:
        raise RuntimeError(
            f"the executed graph has {found} multiplications with weights, the plan {expected}"
        )


def _shape(port: Any) -> Sequence[int]:
    return [axis.get_length() for axis in port.get_partial_shape()]


def _layer(node: Any) -> str:
    return _text(node.get_rt_info()["layerType"])


def _text(value: Any) -> str:
    return str(value.astype(str)) if hasattr(value, "astype") else str(value)


def _float32(values: Array) -> Float32:
    return np.asarray(values, dtype=np.float32)
