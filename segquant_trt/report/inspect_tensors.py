"""What a safetensors file holds: calibration, scores, images, recorded inputs or weights."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.report.description import Cell, Column, Description, Property, Table
from segquant_trt.report.inspect_scores import describe_scores

_BITS = {
    "F4": 4,
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2"), 8),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F64", "I64", "U64"), 64),
}


def describe_tensors(path: Path) -> Description:
    """Names, types and shapes; what our own files add to that. Reads no more than it shows.

    Raises:
        SegQuantError: truncated or malformed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as stream:
            metadata = dict(stream.metadata() or {})
            if "calibration" in metadata:
                return _calibration(path, stream, json.loads(metadata["calibration"]))
            if "scores" in metadata:
                return describe_scores(path, arrays=len(stream.keys()))
            return _plain(path, stream, metadata)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise SegQuantError(
            f"{path} is a truncated or malformed safetensors file: {error}",
            hint="fetch it or run the stage that writes it again",
        ) from error


def _calibration(path: Path, stream: Any, header: dict[str, Any]) -> Description:
    rows: list[tuple[Cell, ...]] = []
    for index, name in enumerate(header["tensors"]):
        minimum = stream.get_tensor(f"{index}.minimum")
        maximum = stream.get_tensor(f"{index}.maximum")
        rows.append((name, minimum.shape[-1], float(minimum.min()), float(maximum.max())))
    return Description(
        kind="calibration",
        properties=(
            Property(name="file", value=path.name),
            Property(name="origin", value=str(header["origin"])),
            Property(name="samples", value=int(header["samples"])),
            Property(name="timestep bins", value=len(header["bin_edges"])),
            Property(name="tensors", value=len(rows)),
            Property(name="graph sha256", value=str(header["onnx_sha256"])),
        ),
        tables=(
            Table(
                title="tensors",
                columns=(
                    Column(name="tensor"),
                    Column(name="channels", unit="count"),
                    Column(name="min", unit="number"),
                    Column(name="max", unit="number"),
                ),
                rows=tuple(rows),
            ),
        ),
    )


def _plain(path: Path, stream: Any, metadata: dict[str, str]) -> Description:
    rows: list[tuple[Cell, ...]] = []
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name in stream.keys():  # noqa: SIM118 - not a mapping
        entry = stream.get_slice(name)
        dtype, shape = str(entry.get_dtype()), list(entry.get_shape())
        size_bytes = math.prod(shape) * _BITS.get(dtype, 8) // 8
        rows.append((name, dtype, str(shape), size_bytes))
        totals[dtype][0] += 1
        totals[dtype][1] += size_bytes
    names = {str(row[0]) for row in rows}
    return Description(
        kind=_name(names),
        properties=(
            Property(name="file", value=path.name),
            Property(name="tensors", value=len(rows)),
            Property(name="size", value=path.stat().st_size, unit="bytes"),
            *(Property(name=f"metadata {key}", value=metadata[key]) for key in sorted(metadata)),
        ),
        tables=(
            Table(
                title="types",
                columns=(
                    Column(name="type"),
                    Column(name="tensors", unit="count"),
                    Column(name="bytes", unit="bytes"),
                ),
                rows=tuple((dtype, *total) for dtype, total in sorted(totals.items())),
            ),
            Table(
                title="tensors",
                columns=(
                    Column(name="tensor"),
                    Column(name="type"),
                    Column(name="shape"),
                    Column(name="bytes", unit="bytes"),
                ),
                rows=tuple(rows),
            ),
        ),
    )


def _name(names: set[str]) -> str:
    if {"float_images", "quantized_images", "seeds"} == names:
        return "report images"
    return "recorded inputs" if "timestep" in names else "tensors"
