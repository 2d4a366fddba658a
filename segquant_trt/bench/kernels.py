"""Time per node of the executed graph, read from ONNX Runtime's profile."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.comparison import KernelTime

_SUFFIX = "_kernel_time"
_MICROSECONDS_PER_MS = 1e3


def kernel_times(profile: Path, *, top: int) -> tuple[KernelTime, ...]:
    """The `top` nodes by median time per call, costliest first; first calls are warm-up.

    `share` is of the time in all nodes, not only those listed.

    Raises:
        SegQuantError: the file is no such profile.
    """
    try:
        events = json.loads(profile.read_text())
    except (OSError, ValueError) as error:
        raise SegQuantError(
            f"{profile} is no readable profile of ONNX Runtime",
            hint="run the command again; it needs room for temporary files",
        ) from error
    return summed(events, top=top)


def summed(events: Iterable[Mapping[str, Any]], *, top: int) -> tuple[KernelTime, ...]:
    """As `kernel_times`, of a profile's events."""
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            op = str(event.get("args", {}).get("op_name", ""))
            durations[name.removesuffix(_SUFFIX), op].append(float(event["dur"]))
    per_call = {
        key: statistics.median(found[1:]) / _MICROSECONDS_PER_MS
        for key, found in durations.items()
        if len(found) > 1
    }
    total = sum(per_call.values()) or 1.0
    costliest = sorted(per_call.items(), key=lambda item: (-item[1], item[0]))[:top]
    return tuple(
        KernelTime(name=name, op=op, ms_per_call=ms, share=ms / total)
        for (name, op), ms in costliest
    )
