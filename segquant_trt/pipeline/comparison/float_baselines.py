"""Open torch modules and TensorRT on the same ONNX file, to set bundles beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.bench.cases import Interface
from segquant_trt.pipeline.comparison.asked import Asked, Kind, exported_in, run_of
from segquant_trt.pipeline.comparison.contestant import Contestant, Machine, work_in
from segquant_trt.pipeline.comparison.onnx_files import open_onnx
from segquant_trt.records import TensorSpec

if TYPE_CHECKING:
    from segquant_trt.bench.baselines.torch_module import TorchDtype
    from segquant_trt.models.family import Family


def open_torch(asked: Asked, name: str, machine: Machine) -> Contestant:
    """Open the torch module of a run folder's checkpoint, or of a named model.

    Raises:
        SegQuantError: there is no such model, or no GPU for what needs one.
    """
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
        work = work_in(run)
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


def open_tensorrt(asked: Asked, name: str, machine: Machine) -> Contestant:
    """Open a float graph to be built by TensorRT in another precision, size by size.

    Raises:
        SegQuantError: there is no GPU, or none with such arithmetic; or no such graph.
    """
    from segquant_trt.bench.baselines.tensorrt_onnx import TensorrtOnnx, check_arithmetic
    from segquant_trt.pipeline.comparison.engines import engines

    precision = _precisions()[asked.kind]
    check_arithmetic(precision)
    opener = engines(cuda_graphs=machine.cuda_graphs)
    float_one = open_onnx(replace(asked, kind="onnxruntime"), name, machine)
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

    run = exported_in(asked)
    return Path(asked.where) if run is None else materialize(run, machine.scratch / "float")
