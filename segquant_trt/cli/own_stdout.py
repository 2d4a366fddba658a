"""Keep stdout for answers: solvers and runtimes print to it from C, late and unasked."""

from __future__ import annotations

import io
import os
import sys

_STDOUT, _STDERR = 1, 2


def own_stdout() -> None:
    """Move the process's stdout to a descriptor that only `sys.stdout` knows.

    What native libraries print goes to stderr from here on, or nowhere where that is closed. Does
    nothing where Python does not write to the process's own stdout.
    """
    if sys.stderr is None:  # else the next file that is opened gets its number
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.devnull, "w")))
    before = sys.stdout
    try:
        if not isinstance(before, io.TextIOWrapper) or before.fileno() != _STDOUT:
            return
        before.flush()
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
    except OSError:
        return
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(kept, "w")),
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
    )
