"""Peak resident memory of one runtime, in a process of its own.

Run as `python -m segquant_trt.bench.memory PARENT_PID TARGET MODEL FOLDER INPUTS`; prints bytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.records.child import child_environment, die_with_parent


def peak_memory_bytes(target: str, model: Path, folder: Path, inputs: Path) -> int:
    """Peak resident bytes of a fresh process that loads the model and calls it once.

    Args:
        target: `float` (an exported graph with its weights in `folder`), or a bundle's target.
        inputs: a safetensors file with the call's inputs.

    Raises:
        SegQuantError: the process failed; its last line says why.
    """
    arguments = [str(os.getpid()), target, str(model), str(folder), str(inputs)]
    done = subprocess.run(
        [sys.executable, "-m", "segquant_trt.bench.memory", *arguments],
        capture_output=True,
        env=child_environment(),
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise SegQuantError(
            f"measuring the memory of {model} failed: {last[0]}",
            hint="free some memory and run 'segquant-trt bench' again",
        )
    return int(done.stdout.split()[-1])


def _main(parent_pid: str, target: str, model: str, folder: str, inputs: str) -> None:
    die_with_parent(int(parent_pid))
    from safetensors.numpy import load_file

    from segquant_trt.backends import BACKENDS
    from segquant_trt.backends.denoise import float_denoise
    from segquant_trt.backends.hoisting import open_whole
    from segquant_trt.records.bundle_layout import PROMPT

    if target == "float":
        float_denoise(Path(model), Path(folder))(load_file(inputs))
    else:
        backend = next(backend for backend in BACKENDS if backend.target == target)
        opened = open_whole(Path(model), Path(folder) / PROMPT, backend.open)
        opened.run(load_file(inputs))
    sys.stdout.write(f"{peak_resident_bytes()}\n")


def peak_resident_bytes() -> int:
    """Most bytes of memory that this process has held since it was started."""
    # Not ru_maxrss: that counts the parent's memory up to exec as the child's own.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    _main(*sys.argv[1:])
