"""The process that one export attempt runs in: `python -m segquant_trt.export.child`.

A failed trace poisons later ones in the same process, and a killed parent must not leave a
writer behind: so every attempt has its own process, which dies with its parent. The job comes as
JSON on standard input; messages go to standard output, one JSON object per line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.child import die_with_parent


def main() -> None:
    """Run the job that standard input describes, and report on standard output."""
    request = json.load(sys.stdin)
    die_with_parent(request["parent"])
    # torch prints what it likes; the messages' stream must stay ours.
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        _tell(messages, done=_run(request, messages))
    except SegQuantError as error:
        _tell(messages, error={"what": error.what, "hint": error.hint})
        sys.exit(1)


def _run(request: dict[str, Any], messages: IO[str]) -> Any:
    from segquant_trt.export.job import Job, run_job
    from segquant_trt.records.codec import to_plain

    job = Job(
        class_name=request["class_name"],
        config=request["config"],
        checkpoint=tuple(map(Path, request["checkpoint"])),
        out=Path(request["out"]),
    )
    validation = run_job(
        job, lambda fraction, text: _tell(messages, fraction=fraction, progress=text)
    )
    return to_plain(validation)


def _tell(messages: IO[str], **message: Any) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


if __name__ == "__main__":
    main()
