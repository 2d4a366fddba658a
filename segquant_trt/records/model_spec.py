"""What `export` says of a denoiser: its inputs, its axes, its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from segquant_trt.records.files import digest_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One graph input or output; a named axis is dynamic.

    `dtype` is NumPy's name (`float32`, `int64`, ...). `shape` mixes lengths and axis names.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisRange:
    """Allowed lengths of a dynamic axis: `minimum <= n <= maximum`, a multiple of `multiple`.

    `typical` is the length that calibration and latency figures use.
    """

    name: str
    minimum: int
    typical: int
    maximum: int
    multiple: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFile:
    """A safetensors file that the graph's initializers point into.

    `header_sha256` covers the length prefix and the JSON header: names, dtypes, shapes, offsets.
    `sample_sha256` covers a piece of every tensor: fine-tunes of one model differ in it alone.
    """

    name: str
    size_bytes: int
    header_sha256: str
    sample_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The numerical check of an export against torch, at sizes other than the traced one."""

    subject: str  # "model", or "two-block cut with random weights"
    sizes: tuple[str, ...]
    max_relative_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """`model.yaml`: everything later stages need to know about the exported denoiser."""

    SCHEMA_VERSION: ClassVar[int] = 2

    schema_version: int = 2
    source: str  # as the user named it; the last path component for folders
    family: str
    class_name: str
    config: dict[str, Any]
    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    axes: tuple[AxisRange, ...]
    timestep: str | None
    prompt_inputs: tuple[str, ...]
    opset: int
    onnx_sha256: str
    checkpoint: tuple[CheckpointFile, ...]
    validation: Validation | None
    exporter: dict[str, str]

    @property
    def size_bytes_float(self) -> int:
        """Bytes of the stored checkpoint."""
        return sum(file.size_bytes for file in self.checkpoint)

    @property
    def checkpoint_sha256(self) -> str:
        """One digest for all files, wherever they lie."""
        return digest_of(
            [[file.size_bytes, file.header_sha256, file.sample_sha256] for file in self.checkpoint]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointLocation:
    """`model.location.yaml`: where this machine holds the checkpoint; never part of a digest."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    folder: str
    pipeline_folder: str | None
    mtime_ns: dict[str, int]
    inode: dict[str, int]
