"""Child processes: they find this package, and die with their parent even when it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import segquant_trt

_PR_SET_PDEATHSIG = 1


def child_environment() -> dict[str, str]:
    """This process's environment, in which the package can be imported though not installed."""
    root = str(Path(segquant_trt.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent ends; call first thing in a child.

    `parent_pid` is the parent's own `os.getpid()`: when it is gone already, exit at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)
