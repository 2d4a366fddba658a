"""What C prints does not reach those who read answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOISY = """
import ctypes, sys
from segquant_trt.cli.own_stdout import own_stdout
own_stdout()
libc = ctypes.CDLL(None)
libc.printf(b"from C\\n")
print("answer \\u00b5")
libc.printf(b"from C, late\\n")  # in C's own buffer until the process ends
"""


def test_native_output_goes_to_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", NOISY], capture_output=True, check=True
    )
    assert done.stdout.decode() == "answer \N{MICRO SIGN}\n"
    assert sorted(done.stderr.decode().splitlines()) == ["from C", "from C, late"]


def test_the_console_script_owns_its_stdout() -> None:
    code = """
import ctypes
from segquant_trt.cli import app
app.main = lambda: (ctypes.CDLL(None).puts(b"from C"), print("answer"))[1]
app.run()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "answer\n"
    assert "from C" in done.stderr


@pytest.mark.parametrize("closed", ["1", "2"])
def test_closed_streams_are_left_alone(closed: str) -> None:
    call = f"{sys.executable} -m segquant_trt.cli --version {closed}>&-"
    done = subprocess.run(call, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    if closed == "2":
        assert done.stdout.startswith("segquant-trt")
