"""What is to be built from which files, and what can be said of it without a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.backends.tensorrt.builder.config import complete_profiles
from segquant_trt.backends.tensorrt.builder.forecast import MemoryForecast, forecast
from segquant_trt.backends.tensorrt.builder.timing_cache import timing_cache_path
from segquant_trt.backends.tensorrt.builder.trtexec import trtexec_command
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.records.engine import BuildOptions, ShapeProfile

if TYPE_CHECKING:
    import onnx

    from segquant_trt.backends.tensorrt.device import Device

INFO_SUFFIX, LAYERS_SUFFIX = ".json", ".layers.json"
_CODES = {"INT8": "int8", "UINT8": "int8", "FLOAT8E4M3FN": "fp8", "FLOAT4E2M1": "fp4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Build `engine` from the graph `onnx`.

    `weights`: the folder of its external data; beside the graph when None. The GPU is the first
    that this process sees: CUDA_VISIBLE_DEVICES chooses another.
    """

    onnx: Path
    engine: Path
    options: BuildOptions = field(default_factory=BuildOptions)
    weights: Path | None = None

    @property
    def folder(self) -> Path:
        """Where external data is."""
        return self.weights or self.onnx.parent

    @property
    def info_path(self) -> Path:
        """The record beside the engine."""
        return beside(self.engine, INFO_SUFFIX)

    @property
    def layers_path(self) -> Path:
        """What the inspector says of the engine."""
        return beside(self.engine, LAYERS_SUFFIX)


def beside(engine: Path, suffix: str) -> Path:
    """A file that goes with an engine: its name with another ending."""
    return engine.with_name(engine.name + suffix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A build that was thought through and not done.

    `portable_command` names files without their folders, so that it can be kept.
    """

    command: str
    portable_command: str
    profiles: tuple[ShapeProfile, ...]
    precisions: tuple[str, ...]
    estimate: MemoryForecast
    timing_cache: Path | None

    def lines(self) -> tuple[str, ...]:
        """For people: profiles, memory, and the same build with NVIDIA's own tool."""
        shapes = [
            f"  profile {index}: {bounds}"
            for index, profile in enumerate(self.profiles)
            for bounds in profile.inputs
        ]
        return (
            f"codes in the graph: {', '.join(self.precisions) or 'none, all is in float'}",
            *(("shapes:", *shapes) if shapes else ("shapes: all fixed by the graph",)),
            *self.estimate.lines(),
            f"timing cache: {self.timing_cache or 'decided on the GPU that builds'}",
            f"the same with trtexec: {self.command}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request whose files have been read and checked."""

    request: BuildRequest
    model: onnx.ModelProto
    preview: Preview


def prepare(
    request: BuildRequest, device: Device | None = None, version: str | None = None
) -> Prepared:
    """Read the graph, check it against the options, and forecast the memory. Needs no GPU.

    Args:
        request: what is to be built.
        device: the GPU that will build, where it is known.
        version: of the TensorRT that will build.

    Raises:
        SegQuantError: the graph or a weight file is missing or cut off, or the profiles do not fit.
    """
    model = load_graph(request.onnx)
    Weights(model, request.folder).check_complete()
    inputs = declared_inputs(model)
    profiles = complete_profiles(request.options.profiles, inputs)
    cache = request.options.timing_cache
    if cache is None and device is not None and version is not None:
        cache = timing_cache_path(version, device)
    options = replace(request.options, timing_cache=cache)
    preview = Preview(
        command=trtexec_command(options, request.onnx, request.engine, layers=request.layers_path),
        portable_command=trtexec_command(
            _without_folders(options), Path(request.onnx.name), Path(request.engine.name)
        ),
        profiles=tuple(profiles),
        precisions=precisions_of(model),
        estimate=forecast(model, request.folder, profiles, options),
        timing_cache=cache if options.use_timing_cache else None,
    )
    return Prepared(request=replace(request, options=options), model=model, preview=preview)


def _without_folders(options: BuildOptions) -> BuildOptions:
    plugins = tuple(Path(path.name) for path in options.plugins)
    return replace(options, plugins=plugins, timing_cache=None)


def declared_inputs(model: onnx.ModelProto) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the graph's inputs; -1 where a length is dynamic.

    Raises:
        SegQuantError: an input declares no shape.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, tuple[int, ...]] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name in constants:
            continue
        if not kind.HasField("shape"):
            raise SegQuantError(
                f"input '{value.name}' declares no shape, not even how many axes it has",
                hint="export the model again; TensorRT needs the rank of every input",
            )
        found[value.name] = tuple(
            dim.dim_value if dim.dim_value > 0 else -1 for dim in kind.shape.dim
        )
    return found


def precisions_of(model: onnx.ModelProto) -> tuple[str, ...]:
    """The kinds of codes that the graph's Q/DQ pairs have: of "int8", "fp8", "fp4".

    The bodies of local functions count: that is where plugins' substitutes quantise.
    """
    from onnx import TensorProto

    names: set[str] = set()
    for nodes, constants in (
        (model.graph.node, model.graph.initializer),
        *((function.node, ()) for function in model.functions),
    ):
        types = {tensor.name: tensor.data_type for tensor in constants}
        for node in nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                types[node.output[0]] = node.attribute[0].t.data_type
            elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                names |= {TensorProto.DataType.Name(kind) for kind in _coded_as(node, types)}
    return tuple(sorted({_CODES[name] for name in names if name in _CODES}))


def _coded_as(node: onnx.NodeProto, types: Mapping[str, int]) -> Iterator[int]:
    """Types that a node's codes are said to have."""
    codes = node.input[:1] if node.op_type == "DequantizeLinear" else ()
    yield from (types[name] for name in (*codes, *node.input[2:3]) if name in types)
    yield from (each.i for each in node.attribute if each.name == "output_dtype" and each.i)
