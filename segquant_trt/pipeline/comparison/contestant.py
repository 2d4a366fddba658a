"""An opened subject of a comparison, and what is known of it beside its timings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segquant_trt.bench.cases import Interface
from segquant_trt.bench.timed import Subject
from segquant_trt.pipeline.comparison.asked import Asked
from segquant_trt.records import FrozenSteps, Manifest, ModelSpec, Quality
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work


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


def described(known: Manifest | ModelSpec) -> Interface:
    """What a record says that a model takes."""
    return Interface(
        inputs=known.inputs, axes=known.axes, class_name=known.class_name, config=known.config
    )


def work_in(run: Path) -> Work:
    """A run folder's records and checkpoint."""
    return Work(run=RunFolder(run), options=CompileOptions(out=run), progress=Silent())
