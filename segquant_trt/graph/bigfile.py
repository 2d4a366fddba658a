"""Weights by reference: read one initializer at a time, wherever its bytes are.

`onnx.load` refuses hard links and pulls whole files into memory; graphs here are opened without
their external data and weights are read through a memory map, tensor by tensor.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from segquant_trt.errors import SegQuantError

_TWO_PER_BYTE = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalRange:
    """Where an initializer's bytes are: a file's base name, an offset and a length in bytes."""

    location: str
    offset: int
    length: int


def load_graph(path: Path) -> onnx.ModelProto:
    """Parse an ONNX file without touching its external data.

    Raises:
        SegQuantError: the file is missing, unreadable, truncated or not an ONNX model.
    """
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError as error:
        raise SegQuantError(
            f"{path} does not exist", hint="check the path of the ONNX file"
        ) from error
    except (DecodeError, ValueError, OSError) as error:
        raise SegQuantError(
            f"{path} is not a readable ONNX model (truncated or another format)",
            hint="export the model again",
        ) from error
    if not model.graph.node or not model.opset_import:
        raise SegQuantError(
            f"{path} holds no ONNX graph (no nodes or no opset)", hint="export the model again"
        )
    return model


def external_range(tensor: onnx.TensorProto) -> ExternalRange | None:
    """The external location of `tensor`, or None when its bytes are inline.

    Raises:
        SegQuantError: the location is not a plain file name (it would lead out of the folder).
    """
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location or Path(location).name != location:
        raise SegQuantError(
            f"initializer '{tensor.name}' points to '{location}'; "
            "only plain file names are allowed",
            hint="re-export the model; files that point elsewhere are not followed",
        )
    offset = int(entries.get("offset", "0"))
    length = int(entries.get("length", "-1"))
    return ExternalRange(location=location, offset=offset, length=length)


class Weights:
    """Initializers of one graph, read lazily; what Constant nodes hold can be read too.

    Args:
        model: a graph opened by `load_graph`.
        folder: where external files are.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._all = {**_in_nodes(model.graph), **self._tensors}
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the initializer `name`."""
        return tuple(self._all[name].dims)

    def dtype(self, name: str) -> np.dtype[np.generic]:
        """NumPy (or ml_dtypes) dtype of the initializer `name`."""
        return onnx.helper.tensor_dtype_to_np_dtype(self._all[name].data_type)

    def size_bytes(self, name: str) -> int:
        """Stored bytes of the initializer `name`."""
        count = int(np.prod(self.shape(name), dtype=np.int64))
        if self._all[name].data_type in _TWO_PER_BYTE:
            return (count + 1) // 2
        return count * self.dtype(name).itemsize

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """The initializer `name` in its stored dtype; external data is a read-only view.

        Codes of four bits are unpacked, one per byte.

        Raises:
            SegQuantError: the external file is missing or too short.
        """
        tensor = self._all[name]
        place = external_range(tensor)
        if place is None:
            return numpy_helper.to_array(tensor)
        view = self._bytes(name, place)
        if tensor.data_type in _TWO_PER_BYTE:
            packed = onnx.TensorProto(dims=tensor.dims, data_type=tensor.data_type)
            packed.raw_data = bytes(view)
            return numpy_helper.to_array(packed)
        return np.frombuffer(view, dtype=self.dtype(name)).reshape(self.shape(name))

    def read_float32(self, name: str) -> npt.NDArray[np.float32]:
        """The initializer `name` converted to float32 (a fresh array)."""
        return np.array(self.read(name), dtype=np.float32)

    def first_not_finite(self) -> str | None:
        """The first floating-point initializer that holds NaN or infinity, read one by one."""
        for name in self:
            # Extension types such as bfloat16 have kind V.
            if self.dtype(name).kind in "fV" and not np.isfinite(self.read_float32(name)).all():
                return name
        return None

    def check_complete(self) -> None:
        """Check that every external file is there and long enough, without reading it.

        Raises:
            SegQuantError: naming the file and the first weight that it lacks.
        """
        for name in self._tensors:
            self.check(name)

    def check(self, name: str) -> None:
        """Check that the file of the initializer `name` is there and long enough.

        Raises:
            SegQuantError: naming the file and the weight.
        """
        place = external_range(self._tensors[name])
        if place is not None:
            self._bytes(name, place)

    def _bytes(self, name: str, place: ExternalRange) -> memoryview:
        length = place.length if place.length >= 0 else self.size_bytes(name)
        data = self._map(place.location)
        if length != self.size_bytes(name) or place.offset + length > len(data):
            raise SegQuantError(
                f"{self._folder / place.location} is too short for weight '{name}': "
                f"{length} bytes at {place.offset} wanted, the file has {len(data)}",
                hint="the file is truncated or changed; fetch or make it again",
            )
        return memoryview(data)[place.offset : place.offset + length]

    def _map(self, location: str) -> mmap.mmap:
        if location not in self._maps:
            path = self._folder / location
            try:
                with path.open("rb") as stream:
                    self._maps[location] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise SegQuantError(
                    f"the weight file {path} cannot be read",
                    hint="check that the checkpoint is still where it was exported from",
                ) from error
        return self._maps[location]


def _in_nodes(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {
        node.output[0]: found.t
        for node in graph.node
        if node.op_type == "Constant"
        for found in node.attribute
        if found.name == "value"
    }
