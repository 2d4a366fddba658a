"""A process that opens one subject, calls it twice, and says what memory that took.

Run as `python -m ...comparison.one_call PARENT_PID JSON`; prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.child import die_with_parent


def _main(parent_pid: str, arguments: str) -> None:
    die_with_parent(int(parent_pid))
    from safetensors.numpy import load_file

    from segquant_trt.bench.memory import peak_resident_bytes
    from segquant_trt.pipeline.comparison.asked import Asked
    from segquant_trt.pipeline.comparison.contestant import Machine
    from segquant_trt.pipeline.comparison.opening import open_contestant

    given: dict[str, Any] = json.loads(arguments)
    machine = Machine(
        scratch=Path(given["scratch"]),
        threads=given["threads"],
        device=given["device"],
        dtype=given["dtype"],
        cuda_graphs=given["cuda_graphs"],
    )
    asked = Asked(kind=given["kind"], where=given["where"])
    try:
        opened = open_contestant(asked, given["name"], machine)
        timed = opened.subject.bind(load_file(given["inputs"]))
        timed.run()
        timed.run()
    except SegQuantError as error:
        sys.exit(error.what)
    answer = {"resident": peak_resident_bytes(), "device": _device_bytes(given["kind"])}
    sys.stdout.write(f"{json.dumps(answer)}\n")


def _device_bytes(kind: str) -> int | None:
    """What torch's allocator held at most; None for what allocates by itself, or without a GPU."""
    torch = sys.modules.get("torch")
    if not kind.startswith("torch") or torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated()) or None


if __name__ == "__main__":
    _main(*sys.argv[1:])
