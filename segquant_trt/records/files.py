"""Atomic writes and content digests: the ground every record stands on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from segquant_trt.errors import SegQuantError

_CHUNK_BYTES = 1 << 22


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that replaces it when the block ends well.

    A killed or failing process leaves the old file (or none), never half of the new one.

    Raises:
        SegQuantError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise writing_failed(path, error) from error
    finally:
        with suppress(OSError):  # on a read-only mount even this fails, and hides the cause
            temporary.unlink(missing_ok=True)


def writing_failed(path: Path, error: OSError) -> SegQuantError:
    """Translate an OSError met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SegQuantError(
            f"no space left on the device while writing {path}",
            hint="free some space or choose another output folder, then run the same command again",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return SegQuantError(
            f"{path} cannot be written: {error.strerror}",
            hint="choose an output folder that you may write to",
        )
    return SegQuantError(
        f"writing {path} failed: {error.strerror or error}",
        hint="check the output folder and run the same command again",
    )


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_write(path) as stream:
        stream.write(data)


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys and a final newline, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    atomic_write_bytes(path, text.encode() + b"\n")


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's content, read in chunks.

    Raises:
        SegQuantError: the file is missing or unreadable.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise SegQuantError(
            f"{path} cannot be read: {error.strerror}",
            hint="check the path, or run the stage that writes this file again",
        ) from error
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex sha256 of a JSON-serialisable value's canonical form."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
