"""TensorRT on the same ONNX file, in FP16 or in eight bits as NVIDIA's own quantiser makes them.

Not executed by this project's tests, which have no GPU: what is built, in which order, and what is
refused is tested with a stand-in for TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from segquant_trt.backends.tensorrt.device import Device, check_precisions, find_device
from segquant_trt.bench.baselines.modelopt_onnx import Precision, prepared_onnx
from segquant_trt.bench.timed import Subject, Timed
from segquant_trt.records import TensorSpec

if TYPE_CHECKING:
    from segquant_trt.models.loop import Array

Prepare = Callable[[Path, Path, Precision, "Mapping[str, Array]"], Path]


class Engines(Protocol):
    """What TensorRT does for a comparison."""

    def build(self, model: Path, out: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
        """Build an engine for one size of each input, and write it.

        Raises:
            SegQuantError: the graph or the device does not allow it.
        """

    def open(self, engine: Path, name: str) -> Subject:
        """Load an engine as something to time.

        Raises:
            SegQuantError: it is for another GPU or version, or no engine.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtOnnx:
    """An ONNX file that gets an engine of its own for every size that it is bound to.

    Args:
        model: self-contained, in float32.
        folder: for prepared graphs and engines.
        prepare: writes the graph in `precision`, calibrated on the inputs of the size.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    model: Path
    precision: Precision
    folder: Path
    engines: Engines
    pci_bus_id: str | None = None
    prepare: Prepare = prepared_onnx

    def bind(self, inputs: Mapping[str, Array]) -> Timed:
        """Prepare the graph, build its engine for this size, and open it.

        Raises:
            SegQuantError: the graph cannot be prepared, built or opened.
        """
        shapes = {key: tuple(array.shape) for key, array in inputs.items()}
        words = "-".join("x".join(map(str, shape)) for shape in shapes.values())
        folder = self.folder / words
        folder.mkdir(parents=True, exist_ok=True)
        graph = self.prepare(self.model, folder / f"{self.precision}.onnx", self.precision, inputs)
        engine = self.engines.build(graph, folder / f"{self.precision}.engine", shapes)
        return self.engines.open(engine, self.name).bind(inputs)


def check_arithmetic(precision: Precision, device: Callable[[], Device] = find_device) -> Device:
    """The GPU, asked before minutes of preparing and building.

    Raises:
        SegQuantError: there is none, or it has no arithmetic for this precision.
    """
    found = device()
    if precision != "fp16":
        check_precisions(found.compute_capability, (precision,))
    return found
