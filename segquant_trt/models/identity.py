"""What makes a checkpoint the same checkpoint, without reading its gigabytes."""

from __future__ import annotations

from typing import Any

from segquant_trt.graph.safetensors_header import read_header
from segquant_trt.models.source import ModelSource
from segquant_trt.records.files import digest_of, sha256_file


def checkpoint_identity(source: ModelSource, *, content: bool) -> dict[str, Any]:
    """Header digest, size, modification time and inode of every file, and the configuration.

    With `content` the digest of every byte as well: a file altered in place with its time set
    back is found only so.
    """
    files = []
    for path in source.checkpoint:
        status = path.stat()
        identity = [path.name, read_header(path).sha256, status.st_size]
        local = [status.st_mtime_ns, status.st_ino]
        files.append([*identity, *local, *([sha256_file(path)] if content else [])])
    return {"config": digest_of(source.config), "class": source.class_name, "files": files}
