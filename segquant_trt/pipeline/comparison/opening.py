"""Open the subjects of a comparison, and say what is known of each beside its timings."""

from __future__ import annotations

from pathlib import Path

from segquant_trt.bench.timed import HostSubject
from segquant_trt.pipeline.comparison.asked import Asked, run_of
from segquant_trt.pipeline.comparison.contestant import Contestant, Graph, Machine, described
from segquant_trt.pipeline.comparison.float_baselines import open_tensorrt, open_torch
from segquant_trt.pipeline.comparison.onnx_files import open_onnx
from segquant_trt.records import Quality
from segquant_trt.records.bundle_layout import MANIFEST, MODEL, PROMPT
from segquant_trt.records.files import sha256_file
from segquant_trt.report.summary import read_json_record


def open_contestant(asked: Asked, name: str, machine: Machine) -> Contestant:
    """Open one subject.

    Raises:
        SegQuantError: whatever keeps it from being opened here.
    """
    match asked.kind:
        case "bundle":
            return _bundle(asked, name, machine)
        case "float" | "onnxruntime" | "openvino":
            return open_onnx(asked, name, machine)
        case "engine":
            return _engine(asked, name, machine)
        case "torch" | "torch-compile" | "torchao-fp8":
            return open_torch(asked, name, machine)
        case "tensorrt-fp16" | "tensorrt-fp8" | "tensorrt-int8":
            return open_tensorrt(asked, name, machine)


def _bundle(asked: Asked, name: str, machine: Machine) -> Contestant:
    from segquant_trt.serve import load

    folder = Path(asked.where)
    denoiser = load(folder, threads=machine.threads)
    manifest = denoiser.manifest
    return Contestant(
        asked=asked,
        subject=HostSubject(name=name, inputs=manifest.inputs, denoise=denoiser.run),
        interface=described(manifest),
        source=manifest.source,
        runtime=manifest.target,
        graph=Graph(model=folder / MODEL, folder=folder, prompt=folder / PROMPT),
        frozen=manifest.frozen,
        quality=_quality(run_of(asked), folder),
        size_bytes=manifest.size_bytes_quantized,
        macs_integer_share=manifest.macs_integer_share,
    )


def _quality(run: Path | None, bundle: Path) -> Quality | None:
    """What `verify` measured of this bundle; figures of an earlier one do not count."""
    if run is None or not (run / "quality.json").exists():
        return None
    quality = read_json_record(run / "quality.json", Quality)
    current = sha256_file(bundle / MANIFEST)
    return quality if quality.bundle_manifest_sha256 == current else None


def _engine(asked: Asked, name: str, machine: Machine) -> Contestant:
    from segquant_trt.backends.tensorrt.runtime.engine_file import read_info
    from segquant_trt.bench.engine_subject import engine_interface
    from segquant_trt.pipeline.comparison.engines import engines

    path = Path(asked.where)
    info = read_info(path)
    profile = info.profiles[0] if info is not None and info.profiles else None
    subject = engines(cuda_graphs=machine.cuda_graphs).open(path, name)
    return Contestant(
        asked=asked,
        subject=subject,
        interface=engine_interface(subject.inputs, profile),
        size_bytes=path.stat().st_size,
    )
