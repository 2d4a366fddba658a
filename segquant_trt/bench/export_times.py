"""Timings as trtexec's `--exportTimes` writes them, for the tools that read those.

A JSON array with one object per call, milliseconds since the first call of the comparison:

| key | here |
|-|-|
| `startEnqMs`, `endEnqMs` | around the call on the host |
| `startH2dMs`, `endH2dMs`, `h2dMs` | no copy to a device is timed: empty, at the start |
| `startComputeMs`, `endComputeMs`, `computeMs` | the call; by its own events on a GPU |
| `startD2hMs`, `endD2hMs`, `d2hMs` | empty, at the end |
| `latencyMs` | the three parts together |

trtexec's own names since TensorRT 8.6; `In` and `Out` of older ones became `H2d` and `D2h`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from segquant_trt.bench.rounds import Timings
from segquant_trt.records.files import atomic_write_bytes


def export_times(path: Path, timings: Mapping[tuple[str, str], Timings]) -> list[Path]:
    """Write the calls of every subject in every case; a file each, for readers expect one subject.

    Args:
        path: the file; with several, words from case and subject are put before its suffix.
        timings: by case and subject.

    Raises:
        SegQuantError: a file cannot be written.
    """
    written: list[Path] = []
    for (case, subject), found in timings.items():
        target = path if len(timings) == 1 else _numbered(path, case, subject, written)
        text = ",\n  ".join(json.dumps(entry) for entry in trace_entries(found))
        atomic_write_bytes(target, f"[ {text}\n]\n".encode())
        written.append(target)
    return written


def trace_entries(timings: Timings) -> list[dict[str, float]]:
    """One object per call, in the order of the rounds."""
    entries = []
    for start, latency in zip(timings.start_ms, timings.latency_ms, strict=True):
        begun, ended = float(start), float(start + latency)
        entries.append(
            {
                "startEnqMs": begun,
                "endEnqMs": ended,
                "startH2dMs": begun,
                "endH2dMs": begun,
                "startComputeMs": begun,
                "endComputeMs": ended,
                "startD2hMs": ended,
                "endD2hMs": ended,
                "h2dMs": 0.0,
                "computeMs": float(latency),
                "d2hMs": 0.0,
                "latencyMs": float(latency),
            }
        )
    return entries


def _numbered(path: Path, case: str, subject: str, taken: list[Path]) -> Path:
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{subject} {case}").strip("-")
    target = path.with_name(f"{path.stem}.{words}{path.suffix}")
    count = 1
    while target in taken:
        count += 1
        target = path.with_name(f"{path.stem}.{words}-{count}{path.suffix}")
    return target
