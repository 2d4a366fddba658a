"""The parent's side of an export attempt: start the process, relay progress, judge the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import IO, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.export.job import Job, OnProgress
from segquant_trt.records import Validation
from segquant_trt.records.child import child_environment
from segquant_trt.records.codec import from_plain
from segquant_trt.records.scratch import remove_stale

_SHOWN_LINES = 12


def run_in_process(job: Job, on_progress: OnProgress) -> Validation:
    """Run `job` in a process of its own.

    Raises:
        SegQuantError: what the job raised, or that its process crashed.
    """
    request = {
        "parent": os.getpid(),
        "class_name": job.class_name,
        "config": job.config,
        "checkpoint": [str(file) for file in job.checkpoint],
        "out": str(job.out),
    }
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            [sys.executable, "-m", "segquant_trt.export.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=child_environment(),
            text=True,
        )
        try:
            return _converse(process, request, noise, on_progress)
        finally:
            process.kill()
            process.wait()
            remove_stale(job.out)


def _converse(
    process: subprocess.Popen[str],
    request: dict[str, Any],
    noise: IO[bytes],
    on_progress: OnProgress,
) -> Validation:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stream:
        json.dump(request, stream)
    for line in process.stdout:
        message = json.loads(line)
        if "error" in message:
            raise SegQuantError(message["error"]["what"], hint=message["error"]["hint"])
        if "done" in message:
            return from_plain(message["done"], Validation, origin="the export process")
        on_progress(message["fraction"], message["progress"])
    raise _crashed(process.wait(), noise)


def _crashed(code: int, noise: IO[bytes]) -> SegQuantError:
    noise.seek(0)
    lines = noise.read().decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:]
    cause = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    shown = "\n".join(f"    {line}" for line in lines)
    return SegQuantError(
        f"the export process failed ({cause}):\n{shown}",
        hint="signal 9 usually means that memory ran out; anything else is worth a bug report "
        "with the model's config.json",
    )
