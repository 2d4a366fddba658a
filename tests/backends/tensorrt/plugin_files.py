"""Shared libraries with a section of device code, written byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

X86_64, ARM64 = 62, 183


def shared_library(
    path: Path,
    architectures: Sequence[str],
    *,
    machine: int = X86_64,
    entry: bytes = b"getCreators",
) -> Path:
    """An ELF file whose `.nv_fatbin` holds code for these: "89", "90 ptx", "89+90 ptx"."""
    fatbin = b"\0" * 8 + b"".join(_fatbin(each) for each in architectures)
    names = b"\0.nv_fatbin\0.shstrtab\0" + entry + b"\0"
    at_fatbin, at_names = 64, 64 + len(fatbin)
    at_table = at_names + len(names)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, machine, 1, 0, 0, at_table, 0,
        64, 0, 0, 64, 3, 2,
    )  # fmt: skip
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, at_fatbin, len(fatbin), 0, 0, 8, 0),
        struct.pack("<IIQQQQIIQQ", 12, 3, 0, 0, at_names, len(names), 0, 0, 1, 0),
    ]
    path.write_bytes(header + fatbin + names + b"".join(sections))
    return path


def _fatbin(architecture: str) -> bytes:
    entries = b"".join(_entry(*each.split()) for each in architecture.split("+"))
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def _entry(number: str, kind: str = "") -> bytes:
    payload = b"code" * 4
    head = struct.pack(
        "<HHIQIIHHI", 1 if kind else 2, 0x101, 64, len(payload), 0, 0, 0, 0, int(number)
    )
    return head.ljust(64, b"\0") + payload
