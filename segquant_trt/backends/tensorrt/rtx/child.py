"""The process that builds run in: `python -m segquant_trt.backends.tensorrt.rtx.child`.

The native library may crash, or print what it likes; and it cannot be interrupted. The job comes
as JSON on standard input, messages go to standard output, one JSON object per line; engines and
logs are files in the folder that the job names.
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
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        _run(request, messages)
    except SegQuantError as error:
        _tell(messages, error={"what": error.what, "hint": error.hint})
        sys.exit(1)


def _run(request: dict[str, Any], messages: IO[str]) -> None:
    import tensorrt_rtx_bindings as trt

    from segquant_trt.backends.tensorrt.rtx.network import BuildJob, build_in_process, make_logger

    job = BuildJob(
        model=Path(request["model"]),
        origin=Path(request["origin"]),
        shapes=request["shapes"],
        plugins=tuple(map(Path, request["plugins"])),
    )
    folder, log = Path(request["folder"]), make_logger(trt)
    for capability in request["capabilities"]:
        with (folder / f"{capability}.log").open("w", encoding="utf-8") as log.stream:
            engine, seconds = build_in_process(
                trt, log, job, capability, lambda done, total: _tell(messages, step=[done, total])
            )
        (folder / f"{capability}.engine").write_bytes(engine)
        _tell(messages, built=capability, seconds=seconds, version=trt.__version__)


def _tell(messages: IO[str], **message: Any) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


if __name__ == "__main__":
    main()
