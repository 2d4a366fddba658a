"""One safetensors file of denoiser inputs: its header first, then rows as they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError

Array = npt.NDArray[np.generic]

CHUNK_BYTES = 1 << 24
_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip


class Shard:
    """An open shard. Names, shapes and types are its header's; nothing else is read unasked."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor."""
        return {name: tuple(part.get_shape()) for name, part in self._slices.items()}

    def dtype(self, name: str) -> str:
        """NumPy's name of a tensor's type, or the format's own where NumPy has none."""
        stored = str(self._slices[name].get_dtype())
        return _TYPES.get(stored, stored)

    def whole(self, name: str) -> Array:
        """A tensor as it is stored."""
        array: Array = self._file.get_tensor(name)
        return array

    def rows(self, name: str, indices: npt.NDArray[np.intp]) -> Array:
        """The rows `indices` of a tensor, in that order; neighbours are read together."""
        part = self._slices[name]
        ends = np.flatnonzero(np.diff(indices) != 1) + 1
        runs = [part[int(run[0]) : int(run[-1]) + 1] for run in np.split(indices, ends)]
        array: Array = runs[0] if len(runs) == 1 else np.concatenate(runs)
        return array

    def chunks(self, name: str) -> Iterator[Array]:
        """A tensor in pieces of whole rows, each of about `CHUNK_BYTES` or one row."""
        shape = tuple(self._slices[name].get_shape())
        if not prod(shape) or not shape:
            yield self.whole(name)
            return
        row_bytes = prod(shape[1:]) * np.dtype(self.dtype(name)).itemsize
        step = max(1, CHUNK_BYTES // row_bytes)
        for start in range(0, shape[0], step):
            yield self._slices[name][start : min(start + step, shape[0])]


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a shard.

    Raises:
        SegQuantError: not a safetensors file, or truncated.
    """
    import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 only after this
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(str(path), framework="numpy")
    except (SafetensorError, OSError) as error:
        raise SegQuantError(
            f"{path} is not a readable safetensors file: {error}",
            hint="record the inputs again",
        ) from error
    with file:
        yield Shard(file)
