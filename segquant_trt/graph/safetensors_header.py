"""The header of a safetensors file: where every tensor's bytes are, without reading them.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' raw bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError

_MAX_HEADER_BYTES = 100_000_000
_SAMPLE_BYTES = 4096
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2,
    "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor: `offset_bytes` counts from the start of the file `file` (a base name)."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetensorsHeader:
    """All tensors of one file. `sha256` covers the length prefix and the JSON header."""

    path: Path
    size_bytes: int
    sha256: str
    tensors: dict[str, StoredTensor]


def read_header(path: Path) -> SafetensorsHeader:
    """Parse the header of `path` and check it against the file's size; reads no tensor.

    Raises:
        SegQuantError: missing, truncated, not safetensors, or the tensors do not fill the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            text = stream.read(length) if 0 < length <= min(size, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise SegQuantError(
            f"{path} cannot be read: {error.strerror}", hint="check the model's folder"
        ) from error
    if not text or len(text) < length:
        raise _damaged(path, f"{size} bytes hold no complete header")
    try:
        header = json.loads(text)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        start = 8 + length
        tensors = {name: _tensor(name, entry, path, start) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, "its header is not a safetensors header") from error
    _check_coverage(path, tensors.values(), start, size)
    digest = hashlib.sha256(prefix + text).hexdigest()
    return SafetensorsHeader(path=path, size_bytes=size, sha256=digest, tensors=tensors)


def sample_sha256(header: SafetensorsHeader) -> str:
    """Hex sha256 over 4 KiB from the middle of every tensor, in the order of the file.

    Fine-tunes of one architecture have equal headers and sizes; this tells them apart at the cost
    of some thousand small reads, however large the file.

    Raises:
        SegQuantError: the file cannot be read, or has been cut short.
    """
    digest = hashlib.sha256()
    places = sorted((tensor.offset_bytes, tensor.size_bytes) for tensor in header.tensors.values())
    try:
        with header.path.open("rb", buffering=0) as stream:
            for offset, size in places:
                length = min(size, _SAMPLE_BYTES)
                stream.seek(offset + (size - length) // 2)
                data = stream.read(length)
                if len(data) < length:
                    raise _damaged(header.path, "it has become shorter while it was read")
                digest.update(data)
    except OSError as error:
        raise SegQuantError(
            f"{header.path} cannot be read: {error.strerror}", hint="check the model's folder"
        ) from error
    return digest.hexdigest()


def _tensor(name: str, entry: dict[str, Any], path: Path, start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    shape = tuple(int(length) for length in entry["shape"])
    item = _ITEM_BYTES.get(entry["dtype"])
    sized = item is None or end - begin == item * math.prod(shape)
    if begin < 0 or end < begin or min(shape, default=0) < 0 or not sized:
        raise ValueError(name)
    return StoredTensor(
        name=name,
        file=path.name,
        dtype=entry["dtype"],
        shape=shape,
        offset_bytes=start + begin,
        size_bytes=end - begin,
    )


def _check_coverage(path: Path, tensors: Iterable[StoredTensor], start: int, size: int) -> None:
    """The tensors follow each other without gaps or overlaps, up to the file's last byte."""
    position = start
    for tensor in sorted(tensors, key=lambda each: (each.offset_bytes, each.size_bytes)):
        if tensor.offset_bytes != position:
            raise _damaged(path, f"tensor '{tensor.name}' does not begin where another one ends")
        position += tensor.size_bytes
    if position != size:
        raise _damaged(path, f"its header asks for {position} bytes, the file has {size}")


def _damaged(path: Path, reason: str) -> SegQuantError:
    return SegQuantError(
        f"{path} is truncated or not a safetensors file: {reason}",
        hint="fetch or save the checkpoint again",
    )
