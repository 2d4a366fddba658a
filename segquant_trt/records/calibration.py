"""`calibration.safetensors`: what calibration saw at every site's input and output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.records.model_spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SCHEMA_VERSION = 3
HISTOGRAM_BINS = 2048
_FIELDS = ("minimum", "maximum", "histogram", "exponent", "rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationStats:
    """Statistics of one tensor over B timestep bins and C channels.

    `minimum`, `maximum`: float32[B, C]. `histogram`: int64[B, 2048], uniform over
    `[-2**exponent[b], 2**exponent[b]]`. `rows`: float32[B, R, C], sampled channel vectors.
    """

    minimum: npt.NDArray[np.float32]
    maximum: npt.NDArray[np.float32]
    histogram: npt.NDArray[np.int64]
    exponent: npt.NDArray[np.int32]
    rows: npt.NDArray[np.float32]
    elements_per_sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The record. `bin_edges[b]` is the smallest timestep of bin b; empty without a timestep.

    `checkpoint_sha256` is the model specification's: graphs of fine-tunes are equal.

    `patches`: for each convolution with several taps, float32[B, R, C * taps] of sampled input
    windows, padding included, in the order of one output channel of its weight.
    """

    onnx_sha256: str
    checkpoint_sha256: str
    origin: str  # "trajectories", "inputs" or "synthetic"
    samples: int
    bin_edges: tuple[float, ...]
    tensors: Mapping[str, ActivationStats]
    patches: Mapping[str, npt.NDArray[np.float32]]


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write the record atomically; equal records give equal bytes."""
    from safetensors.numpy import save

    names = sorted(calibration.tensors)
    arrays: dict[str, Any] = {}
    for index, name in enumerate(names):
        for field in _FIELDS:
            arrays[f"{index}.{field}"] = getattr(calibration.tensors[name], field)
    windows = sorted(calibration.patches)
    arrays.update({f"{i}.patches": calibration.patches[name] for i, name in enumerate(windows)})
    header = {
        "schema_version": SCHEMA_VERSION,
        "onnx_sha256": calibration.onnx_sha256,
        "checkpoint_sha256": calibration.checkpoint_sha256,
        "origin": calibration.origin,
        "samples": calibration.samples,
        "bin_edges": list(calibration.bin_edges),
        "tensors": names,
        "patches": windows,
        "elements_per_sample": [calibration.tensors[name].elements_per_sample for name in names],
    }
    # One metadata key: the format does not fix the order of several.
    atomic_write_bytes(path, save(arrays, metadata={"calibration": json.dumps(header)}))


def read_calibration(path: Path) -> Calibration:
    """Read the record.

    Raises:
        SegQuantError: missing, truncated, or not a calibration of this schema version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata.get("calibration", "{}"))
            if header.get("schema_version") != SCHEMA_VERSION:
                raise SegQuantError(
                    f"{path} is not a calibration of schema version {SCHEMA_VERSION}",
                    hint="run 'segquant-trt calibrate' again",
                )
            tensors = {
                name: ActivationStats(
                    **{field: file.get_tensor(f"{index}.{field}") for field in _FIELDS},
                    elements_per_sample=count,
                )
                for index, (name, count) in enumerate(
                    zip(header["tensors"], header["elements_per_sample"], strict=True)
                )
            }
            patches = {
                name: file.get_tensor(f"{index}.patches")
                for index, name in enumerate(header["patches"])
            }
        return Calibration(
            onnx_sha256=header["onnx_sha256"],
            checkpoint_sha256=header["checkpoint_sha256"],
            origin=header["origin"],
            samples=header["samples"],
            bin_edges=tuple(float(edge) for edge in header["bin_edges"]),
            tensors=tensors,
            patches=patches,
        )
    except (
        *(SafetensorError, OSError, KeyError),
        *(ValueError, TypeError, AttributeError),  # JSON of another form than was written
    ) as error:
        raise SegQuantError(
            f"{path} is not a readable calibration (missing, truncated or altered)",
            hint="run 'segquant-trt calibrate' again",
        ) from error


def check_checkpoint(
    calibration: Calibration, path: Path, spec: ModelSpec, spec_path: Path
) -> None:
    """Check that the calibration in `path` saw the weights of the model in `spec_path`.

    Raises:
        SegQuantError: it is of another model, or of another fine-tune of this one.
    """
    if calibration.onnx_sha256 != spec.onnx_sha256:
        raise _of_another("model", path, spec_path)
    if calibration.checkpoint_sha256 != spec.checkpoint_sha256:
        raise _of_another("checkpoint", path, spec_path)


def _of_another(what: str, path: Path, spec_path: Path) -> SegQuantError:
    return SegQuantError(
        f"{path} was calibrated on another {what} than {spec_path} describes",
        hint="run 'segquant-trt calibrate' on this model again",
    )
