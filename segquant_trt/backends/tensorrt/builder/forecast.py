"""How much memory a build and its engine will take at least, from the graph alone.

Activations are counted as if every value were stored from its node to its last reader, but for
what fusion surely spares. Builders add workspace, alignment and an order of their own: of zoo
models (float32, 64 to 1024 samples) TensorRT-RTX 1.7.1 reports 1.2 to 4.5 times this, the less the
larger they are. So what does not fit by this does not fit; what fits by it may still not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from segquant_trt.backends.tensorrt.builder.value_sizes import ValueSizes, with_shapes
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.wiring import Wiring, read_tensors
from segquant_trt.records.engine import BuildOptions, ShapeProfile

_HOST_COPIES = 2  # what the parser holds, and the engine that is being serialised
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Lower estimates in bytes. `unknown_values`: inner tensors whose size could not be told.

    `activations_bytes` is the largest over the profiles, at their largest shapes.
    """

    weights_bytes: int
    activations_bytes: int
    io_bytes: int
    workspace_bytes: int | None
    unknown_values: int

    @property
    def engine_file_bytes(self) -> int:
        """The engine on disk, when its weights stay in it."""
        return self.weights_bytes

    @property
    def device_run_bytes(self) -> int:
        """On the GPU: weights, and one execution context with its inputs and outputs."""
        return self.weights_bytes + self.activations_bytes + self.io_bytes

    @property
    def device_build_bytes(self) -> int:
        """On the GPU while building: the same, and the workspace that tactics may try."""
        return self.device_run_bytes + (self.workspace_bytes or 0)

    @property
    def host_build_bytes(self) -> int:
        """In this machine's memory while building."""
        return _HOST_COPIES * self.weights_bytes

    def lines(self) -> tuple[str, ...]:
        """For people."""
        unknown = self.unknown_values
        workspace = (
            "all that is free" if self.workspace_bytes is None else _gib(self.workspace_bytes)
        )
        return (
            "memory (at least; estimated from the graph, not measured):",
            f"  weights               {_gib(self.weights_bytes)}",
            f"  activations, peak     {_gib(self.activations_bytes)}",
            f"  inputs and outputs    {_gib(self.io_bytes)}",
            f"  workspace limit       {workspace}",
            f"  GPU, running          {_gib(self.device_run_bytes)}",
            f"  host, building        {_gib(self.host_build_bytes)}",
            *(() if not unknown else (f"  ({unknown} inner values of unknown size not counted)",)),
        )


def forecast(
    model: onnx.ModelProto, folder: Path, profiles: Sequence[ShapeProfile], options: BuildOptions
) -> MemoryForecast:
    """What building and running a graph takes, at the largest shapes of the profiles.

    Args:
        model: opened without its external data.
        folder: where that data is; its sizes are read, not its content.
        profiles: none where the graph is static.
        options: of the build.
    """
    shapes = [{each.name: each.maximum for each in profile.inputs} for profile in profiles]
    each = [ValueSizes(with_shapes(model, found), folder) for found in shapes or [{}]]
    peaks = [_peak(values) for values in each]
    workspace = [limit.size_bytes for limit in options.pools if limit.pool == "workspace"]
    return MemoryForecast(
        weights_bytes=each[0].weights_bytes(),
        activations_bytes=max(peak for peak, _ in peaks),
        io_bytes=max(sum(values.size_bytes(name) or 0 for name in values.ends) for values in each),
        workspace_bytes=workspace[0] if workspace else None,
        unknown_values=max(unknown for _, unknown in peaks),
    )


def check_memory(
    estimate: MemoryForecast, device: str, free_bytes: int, options: BuildOptions
) -> None:
    """Refuse a build whose engine would not fit, before it takes minutes to fail.

    Raises:
        SegQuantError: weights and activations are more than the GPU's free memory.
    """
    needed = estimate.device_run_bytes
    if options.weight_streaming:
        needed -= estimate.weights_bytes
    if needed > free_bytes:
        streaming = "" if options.weight_streaming else ", allow weight streaming"
        raise SegQuantError(
            f"the engine is estimated to need at least {_gib(needed)} on {device} (weights "
            f"{_gib(estimate.weights_bytes)}, activations {_gib(estimate.activations_bytes)}), "
            f"where {_gib(free_bytes)} are free",
            hint=f"lower --maxShapes{streaming}, or free the GPU; --dry-run shows the estimate",
        )


def _peak(values: ValueSizes) -> tuple[int, int]:
    """Bytes of inner values that live at once, and how many sizes are unknown."""
    found = {name: values.size_bytes(name) for name in values.stored()}
    sizes = {name: size or 0 for name, size in found.items()}
    last = _last_readers(values.wiring)
    live = peak = 0
    for position, node in enumerate(values.wiring.nodes):
        live += sum(sizes.get(name, 0) for name in node.output)
        peak = max(peak, live)
        gone = {*read_tensors(node), *node.output}
        live -= sum(sizes.get(name, 0) for name in gone if last.get(name, position) == position)
    return peak, sum(size is None for size in found.values())


def _last_readers(wiring: Wiring) -> dict[str, int]:
    last: dict[str, int] = {}
    for position, node in enumerate(wiring.nodes):
        # Codes are needed for as long as what is decoded from them.
        through = node.output if node.op_type == "DequantizeLinear" else ()
        readers = [reader for name in through for reader in wiring.consumers.get(name, ())]
        ends = [wiring.order[reader.output[0]] for reader in readers]
        for name in read_tensors(node):
            last[name] = max(position, last.get(name, 0), *ends)
    return last


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.2f} GiB" if size_bytes >= _GIB // 8 else f"{size_bytes} bytes"
