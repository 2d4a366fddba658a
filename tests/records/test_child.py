"""Child processes find the package from anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import segquant_trt
from segquant_trt.records.child import child_environment


@pytest.mark.parametrize("given", [None, "", "/somewhere/else"])
def test_a_child_imports_this_package_from_any_folder(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    program = """
import segquant_trt, sys
print(segquant_trt.__file__)
print("/somewhere/else" in sys.path)
"""
    # Without `site` the package is not found by being installed.
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=child_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    file, elsewhere = done.stdout.splitlines()
    assert Path(file) == Path(segquant_trt.__file__)
    assert elsewhere == str(given == "/somewhere/else")
