"""Write initializers into one external file, one tensor at a time."""

from __future__ import annotations

import hashlib
from typing import IO

import numpy as np
import numpy.typing as npt
import onnx

INLINE_BYTES = 512
_ALIGNMENT_BYTES = 64


class PayloadWriter:
    """Appends tensors to `stream` and points their TensorProtos to it.

    Tensors up to 512 bytes stay inside the graph: runtimes need shapes, axes and scalars at hand.

    Args:
        stream: the external file, open for writing at its start.
        location: the base name that the graph will know the file by.
        share: store equal bytes once, whatever their names and shapes.
    """

    def __init__(self, stream: IO[bytes], location: str, *, share: bool = False) -> None:
        self._stream = stream
        self._location = location
        self._offset = 0
        self._share = share
        self._places: dict[bytes, int] = {}

    def put(self, name: str, array: npt.NDArray[np.generic]) -> onnx.TensorProto:
        """Store `array`; the bytes are little-endian in C order, 64-byte aligned."""
        tensor = onnx.TensorProto(
            name=name,
            dims=array.shape,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        )
        return self._stored(tensor, np.ascontiguousarray(array))

    def put_packed(
        self, name: str, packed: npt.NDArray[np.uint8], *, dims: tuple[int, ...], data_type: int
    ) -> onnx.TensorProto:
        """Store a tensor of a type narrower than a byte, whose bytes are `packed`."""
        tensor = onnx.TensorProto(name=name, dims=dims, data_type=data_type)
        return self._stored(tensor, np.ascontiguousarray(packed))

    def _stored(
        self, tensor: onnx.TensorProto, contiguous: npt.NDArray[np.generic]
    ) -> onnx.TensorProto:
        if contiguous.nbytes <= INLINE_BYTES:
            tensor.raw_data = contiguous.tobytes()
            return tensor
        offset = self._append(contiguous.reshape(-1).view(np.uint8).data)
        point_to(tensor, self._location, offset=offset, length=contiguous.nbytes)
        return tensor

    def _append(self, data: memoryview) -> int:
        digest = hashlib.sha256(data).digest() if self._share else b""
        if digest in self._places:
            return self._places[digest]
        self._stream.write(b"\0" * (-self._offset % _ALIGNMENT_BYTES))
        offset = self._offset + -self._offset % _ALIGNMENT_BYTES
        self._stream.write(data)
        self._offset = offset + len(data)
        if self._share:
            self._places[digest] = offset
        return offset


def point_to(tensor: onnx.TensorProto, location: str, *, offset: int, length: int) -> None:
    """Make `tensor` external."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def relocate(model: onnx.ModelProto, location: str) -> None:
    """Give the external file of all initializers another base name."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
