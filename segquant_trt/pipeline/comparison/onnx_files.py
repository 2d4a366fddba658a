"""Open ONNX files of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from segquant_trt.bench.cases import Interface
from segquant_trt.bench.onnx_file import onnx_subject
from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline.comparison.asked import Asked, Kind, exported_in, run_of
from segquant_trt.pipeline.comparison.contestant import (
    Contestant,
    Graph,
    Machine,
    described,
    work_in,
)
from segquant_trt.records import Manifest, ModelSpec, Target, TensorSpec
from segquant_trt.records.bundle_layout import MANIFEST
from segquant_trt.records.codec import read_record
from segquant_trt.report.summary import read_json_record

_RUNTIMES: Mapping[Kind, Target] = {
    "float": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


def open_onnx(asked: Asked, name: str, machine: Machine) -> Contestant:
    """Open an ONNX file on a CPU runtime, or the float graph of a run folder.

    Raises:
        SegQuantError: there is none, or the runtime refuses it.
    """
    run, path = run_of(asked), Path(asked.where)
    exported = exported_in(asked)
    if exported is None and (asked.kind == "float" or path.is_dir()):
        raise SegQuantError(
            f"{path} is no run folder with an exported model",
            hint=f"give the folder that 'segquant-trt compile' wrote, as {asked.kind}:RUN",
        )
    work = None if exported is None else work_in(exported)
    model = path if work is None else work.run / "model.onnx"
    folder = None if work is None else work.weights()
    subject = onnx_subject(
        model, name, target=_RUNTIMES[asked.kind], folder=folder, threads=machine.threads
    )
    spec = None if work is None else work.spec()
    return Contestant(
        asked=asked,
        subject=subject,
        interface=_told_beside(path, run, subject.inputs) if spec is None else described(spec),
        source=None if spec is None else spec.source,
        runtime=_RUNTIMES[asked.kind],
        graph=Graph(model=model, folder=folder or path.parent),
        size_bytes=None if spec is None else spec.size_bytes_float,
    )


def _told_beside(path: Path, run: Path | None, inputs: tuple[TensorSpec, ...]) -> Interface:
    """What a record beside a file says of its axes, if it is about these inputs."""
    known: Manifest | ModelSpec | None = None
    if (path.parent / MANIFEST).is_file():
        known = read_json_record(path.parent / MANIFEST, Manifest)
    elif run is not None:
        known = read_record(run / "model.yaml", ModelSpec)
    if known is None or {spec.name for spec in known.inputs} != {spec.name for spec in inputs}:
        return Interface(inputs=inputs)
    return described(known)
