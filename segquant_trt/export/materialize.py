"""A self-contained copy of an export, for tools that cannot follow it to the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import external_range, load_graph
from segquant_trt.records import CheckpointLocation
from segquant_trt.records.codec import read_record
from segquant_trt.records.files import atomic_write, atomic_write_bytes

_DATA = "model.weights"
_CHUNK_BYTES = 1 << 24


def materialize(run: Path, out: Path) -> Path:
    """Copy `run/model.onnx` and the bytes it refers to into the folder `out`.

    Weights are streamed; `out/model.onnx` then loads in any ONNX tool. Returns its path.

    Raises:
        SegQuantError: there is no export in `run`, the checkpoint has moved or shrunk, or `out`
            cannot be written.
    """
    model = load_graph(run / "model.onnx")
    folder = Path(read_record(run / "model.location.yaml", CheckpointLocation).folder)
    with atomic_write(out / _DATA) as data:
        for tensor in model.graph.initializer:
            place = external_range(tensor)
            if place is None:
                continue
            offset = data.tell()
            _copy_range(folder / place.location, place.offset, place.length, data)
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = _DATA
                elif entry.key == "offset":
                    entry.value = str(offset)
    atomic_write_bytes(out / "model.onnx", model.SerializeToString(deterministic=True))
    atomic_write_bytes(out / "model.yaml", (run / "model.yaml").read_bytes())
    return out / "model.onnx"


def _copy_range(path: Path, offset: int, length: int, target: IO[bytes]) -> None:
    try:
        with path.open("rb") as source:
            source.seek(offset)
            left = length
            while left:
                chunk = source.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    break
                target.write(chunk)
                left -= len(chunk)
    except FileNotFoundError as error:
        raise _moved(path) from error
    if left:
        raise _moved(path)


def _moved(path: Path) -> SegQuantError:
    return SegQuantError(
        f"{path} is gone or shorter than when the model was exported",
        hint="put the checkpoint back, or export again",
    )
