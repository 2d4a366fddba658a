"""`inspect`: say what a file or folder holds, recognised by its content.

| content | described as |
|---|---|
| folder with `manifest.json` | bundle, every file checked against its sha256 |
| folder with `model.yaml` | run folder |
| folder of `*.safetensors` | recorded inputs |
| JSON header behind a length | safetensors: calibration, scores, images, inputs, weights |
| YAML or JSON mapping | the record whose keys it has |
| anything else | ONNX graph |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    Benchmark,
    CheckpointLocation,
    GraphFacts,
    Manifest,
    ModelSpec,
    Quality,
    QuantPlan,
)
from segquant_trt.records.codec import from_plain, read_yaml
from segquant_trt.records.trials import Trials
from segquant_trt.report.description import Description
from segquant_trt.report.inspect_record import Record, describe_record

_KINDS: tuple[type[Record], ...] = (
    ModelSpec,
    CheckpointLocation,
    GraphFacts,
    Trials,
    QuantPlan,
    Manifest,
    Quality,
    Benchmark,
)
_HINT = "a record, an ONNX graph, a safetensors file, a bundle or a run folder can be inspected"


def describe(path: Path, *, analysis: Callable[[Path], GraphFacts] | None = None) -> Description:
    """What `path` holds; `analysis` finds the sites and segments of an ONNX graph.

    Raises:
        SegQuantError: missing, unreadable, truncated, or of no known kind.
    """
    if path.is_dir():
        from segquant_trt.report.inspect_folder import describe_folder

        return describe_folder(path)
    head = _head(path)
    if _is_safetensors(head):
        from segquant_trt.report.inspect_tensors import describe_tensors

        return describe_tensors(path)
    if _is_text(head):
        return describe_record(read_any_record(path), path.name)
    from segquant_trt.report.inspect_graph import describe_graph

    return describe_graph(path, analysis)


def read_any_record(path: Path) -> Record:
    """Read a YAML or JSON record of whichever kind its keys say.

    Raises:
        SegQuantError: malformed, truncated, or not a record.
    """
    plain = _read_json(path) if path.suffix == ".json" else read_yaml(path)
    kind = _kind(plain)
    if kind is None:
        raise SegQuantError(f"{path} is text, but none of the known records", hint=_HINT)
    version = plain.get("schema_version")
    if version != kind.SCHEMA_VERSION:
        raise SegQuantError(
            f"{path} has schema_version {version!r}; this program reads {kind.SCHEMA_VERSION}",
            hint="inspect it with the version that wrote it, or run the stage that writes it again",
        )
    return from_plain(plain, kind, origin=str(path))


def _kind(plain: Any) -> type[Record] | None:
    """The record type that shares most keys with `plain`, when that is more than half of them."""
    if not isinstance(plain, dict):
        return None
    keys = set(plain)
    best, best_overlap = None, 0.5
    for kind in _KINDS:
        known = {field.name for field in fields(kind)}
        overlap = len(keys & known) / len(keys | known)
        if overlap > best_overlap:
            best, best_overlap = kind, overlap
    return best


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise SegQuantError(
            f"{path} cannot be read: {error.strerror}", hint="check the path"
        ) from error
    if not head:
        raise SegQuantError(f"{path} is empty", hint="run the command that writes it again")
    return head


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 9 or head[8:9] != b"{":
        return False
    length: int = struct.unpack("<Q", head[:8])[0]
    return 2 <= length <= 100_000_000


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # A character may be cut at the end of what was read.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode()
    return not any(ord(character) < 32 and character not in "\t\n\r" for character in text)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise SegQuantError(f"{path} is not a text file", hint=_HINT) from error
    except json.JSONDecodeError as error:
        raise SegQuantError(
            f"{path} is not valid JSON (truncated or edited): line {error.lineno}: {error.msg}",
            hint="undo the edit, or run the stage that writes this file again",
        ) from error
