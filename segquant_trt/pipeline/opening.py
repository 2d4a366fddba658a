"""Open the subjects of a comparison, and say what is known of each beside its timings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.bench.cases import Interface
from segquant_trt.bench.onnx_file import onnx_subject
from segquant_trt.bench.timed import HostSubject, Subject
from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline.contestants import Asked, Kind, run_of
from segquant_trt.records import FrozenSteps, Manifest, ModelSpec, Quality, TensorSpec
from segquant_trt.records.bundle_layout import MANIFEST, MODEL, PROMPT
from segquant_trt.records.codec import read_record
from segquant_trt.records.files import sha256_file
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work
from segquant_trt.report.summary import read_json_record

if TYPE_CHECKING:
    from segquant_trt.bench.baselines.torch_module import TorchDtype
    from segquant_trt.models.family import Family

_RUNTIMES: Mapping[Kind, Any] = {
    "float": "onnxruntime",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where subjects run. `scratch` is a folder for graphs and engines made on the way."""

    scratch: Path
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    cuda_graphs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An ONNX graph on disk: what a profile runs and work is counted in."""

    model: Path
    folder: Path
    prompt: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An opened subject and what is known of it. `runtime`: what runs its graph on a CPU."""

    asked: Asked
    subject: Subject
    interface: Interface
    source: str | None = None
    runtime: str | None = None
    graph: Graph | None = None
    frozen: FrozenSteps | None = None
    quality: Quality | None = None
    size_bytes: int | None = None
    macs_integer_share: float | None = None

    @property
    def name(self) -> str:
        """How tables call it."""
        return self.subject.name


def open_contestant(asked: Asked, name: str, machine: Machine) -> Contestant:
    """Open one subject.

    Raises:
        SegQuantError: whatever keeps it from being opened here.
    """
    match asked.kind:
        case "bundle":
            return _bundle(asked, name, machine)
        case "float" | "onnxruntime" | "openvino":
            return _onnx(asked, name, machine)
        case "engine":
            return _engine(asked, name, machine)
        case "torch" | "torch-compile" | "torchao-fp8":
            return _torch(asked, name, machine)
        case "tensorrt-fp16" | "tensorrt-fp8" | "tensorrt-int8":
            return _tensorrt(asked, name, machine)


def _bundle(asked: Asked, name: str, machine: Machine) -> Contestant:
    from segquant_trt.serve import load

    folder = Path(asked.where)
    denoiser = load(folder, threads=machine.threads)
    manifest = denoiser.manifest
    return Contestant(
        asked=asked,
        subject=HostSubject(name=name, inputs=manifest.inputs, denoise=denoiser.run),
        interface=_described(manifest),
        source=manifest.source,
        runtime=manifest.target,
        graph=Graph(model=folder / MODEL, folder=folder, prompt=folder / PROMPT),
        frozen=manifest.frozen,
        quality=_quality(run_of(asked), folder),
        size_bytes=manifest.size_bytes_quantized,
        macs_integer_share=manifest.macs_integer_share,
    )


def _described(known: Manifest | ModelSpec) -> Interface:
    return Interface(
        inputs=known.inputs, axes=known.axes, class_name=known.class_name, config=known.config
    )


def _quality(run: Path | None, bundle: Path) -> Quality | None:
    """What `verify` measured of this bundle; figures of an earlier one do not count."""
    if run is None or not (run / "quality.json").exists():
        return None
    quality = read_json_record(run / "quality.json", Quality)
    current = sha256_file(bundle / MANIFEST)
    return quality if quality.bundle_manifest_sha256 == current else None


def _onnx(asked: Asked, name: str, machine: Machine) -> Contestant:
    run, path = run_of(asked), Path(asked.where)
    exported = run is not None and (path.is_dir() or path.name == "model.onnx")
    if not exported and (asked.kind == "float" or path.is_dir()):
        raise SegQuantError(
            f"{path} is no run folder with an exported model",
            hint=f"give the folder that 'segquant-trt compile' wrote, as {asked.kind}:RUN",
        )
    work = _work(run) if run is not None and exported else None
    model = path if work is None else work.run / "model.onnx"
    folder = None if work is None else work.weights()
    subject = onnx_subject(
        model, name, target=_RUNTIMES[asked.kind], folder=folder, threads=machine.threads
    )
    spec = None if work is None else work.spec()
    return Contestant(
        asked=asked,
        subject=subject,
        interface=_told_beside(path, run, subject.inputs) if spec is None else _described(spec),
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
    return _described(known)


def _engine(asked: Asked, name: str, machine: Machine) -> Contestant:
    from segquant_trt.backends.tensorrt.runtime.engine_file import read_info
    from segquant_trt.bench.engine_subject import engine_interface
    from segquant_trt.pipeline.engines import engines

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


def _torch(asked: Asked, name: str, machine: Machine) -> Contestant:
    from segquant_trt.bench.baselines.torch_module import torch_subject
    from segquant_trt.models.torch_module import load_module

    fp8 = asked.kind == "torchao-fp8"
    device = "cuda" if fp8 and machine.device == "cpu" else machine.device
    if device != "cpu":
        _bus_id(name)  # refuses before a large checkpoint is read
    source = _module_source(asked)
    subject = torch_subject(
        name,
        load_module(source.files, source.family, source.config),
        source.family,
        source.inputs,
        device=device,
        dtype="bfloat16" if fp8 else _dtype(machine.dtype),
        compiled=asked.kind != "torch",
        prepare=_row_wise_fp8 if fp8 else None,
    )
    if machine.threads is not None and device == "cpu":
        import torch

        torch.set_num_threads(machine.threads)
    interface = Interface(
        inputs=source.inputs,
        axes=source.family.sizes(source.config),
        class_name=source.family.class_name,
        config=source.config,
    )
    size = sum(file.stat().st_size for file in source.files)
    return Contestant(
        asked=asked, subject=subject, interface=interface, source=source.name, size_bytes=size
    )


def _bus_id(name: str) -> str:
    import torch

    from segquant_trt.bench.baselines.torch_module import cuda_bus_id

    return cuda_bus_id(torch.cuda, name)


def _row_wise_fp8(module: Any) -> Any:
    import torch

    from segquant_trt.bench.baselines.torchao_fp8 import quantize_module

    return quantize_module(module, cuda=torch.cuda)


def _dtype(name: str) -> TorchDtype:
    match name:
        case "float16":
            return "float16"
        case "bfloat16":
            return "bfloat16"
        case _:
            return "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModuleSource:
    name: str
    files: tuple[Path, ...]
    family: Family
    config: Mapping[str, Any]
    inputs: tuple[TensorSpec, ...]


def _module_source(asked: Asked) -> _ModuleSource:
    from segquant_trt.models import family_for
    from segquant_trt.models.source import resolve

    run = run_of(asked)
    if run is not None:
        work = _work(run)
        spec, folder = work.spec(), work.weights()
        files = tuple(folder / file.name for file in spec.checkpoint)
        name, class_name, config = spec.source, spec.class_name, spec.config
    else:
        found = resolve(asked.where)
        files, name, class_name, config = (
            found.checkpoint,
            found.name,
            found.class_name,
            found.config,
        )
    family = family_for(class_name)
    with family.described():
        inputs = family.inputs(config)
    return _ModuleSource(name=name, files=files, family=family, config=config, inputs=inputs)


def _tensorrt(asked: Asked, name: str, machine: Machine) -> Contestant:
    from segquant_trt.bench.baselines.tensorrt_onnx import TensorrtOnnx, check_arithmetic
    from segquant_trt.pipeline.engines import engines

    precision = _precisions()[asked.kind]
    check_arithmetic(precision)
    opener = engines(cuda_graphs=machine.cuda_graphs)
    float_one = _onnx(replace(asked, kind="onnxruntime"), name, machine)
    model = _self_contained(asked, machine)
    subject = TensorrtOnnx(
        name=name,
        inputs=float_one.interface.inputs,
        model=model,
        precision=precision,
        folder=machine.scratch / name.replace("/", "-"),
        engines=opener,
        pci_bus_id=_bus_id(name),
    )
    return replace(float_one, asked=asked, subject=subject, runtime=None, size_bytes=None)


def _precisions() -> Mapping[Kind, Any]:
    return {"tensorrt-fp16": "fp16", "tensorrt-fp8": "fp8", "tensorrt-int8": "int8"}


def _self_contained(asked: Asked, machine: Machine) -> Path:
    """ModelOpt follows no weights out of a graph's own folder."""
    from segquant_trt.export import materialize

    run = run_of(asked)
    if run is None:
        return Path(asked.where)
    return materialize(run, machine.scratch / "float")


def _work(run: Path) -> Work:
    return Work(run=RunFolder(run), options=CompileOptions(out=run), progress=Silent())
