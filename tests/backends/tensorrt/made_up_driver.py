"""Builds the made-up driver, and runs code that finds it instead of a real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("driver.c")
ROOT = Path(__file__).parents[3]


def build_driver(folder: Path) -> Path:
    """A folder with libcuda.so.1 and libnvidia-ml.so.1."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        library = folder / name
        subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", library, SOURCE], check=True)
    return folder


def run(code: str, driver: Path | None, *paths: Path, **answers: object) -> tuple[int, str, str]:
    """Exit status, output and errors of `code`, with the driver found in `driver` alone.

    Args:
        code: of Python.
        driver: from `build_driver`; None: wherever the system finds one.
        paths: further folders of modules.
        answers: the driver's, as FAKE_... in driver.c, in lower case.
    """
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    if driver is not None:
        environment["LD_LIBRARY_PATH"] = str(driver)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*paths, ROOT)))
    environment |= {f"FAKE_{key.upper()}": str(value) for key, value in answers.items()}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    return found.returncode, found.stdout, found.stderr
