"""The package and its help need no heavy library, and start fast."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from segquant_trt.cli.app import COMMANDS

HEAVY = (
    "accelerate", "diffusers", "matplotlib", "numpy", "onnx", "onnxruntime", "openvino", "PIL",
    "ray", "scipy", "skimage", "sklearn", "tensorrt", "torch", "transformers",
)  # fmt: skip
BLOCK = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is not to be imported here")

sys.meta_path.insert(0, Blocker())
"""
LIMIT_SECONDS = 0.5


def run_blocked(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=60
    )


def test_blocker_blocks() -> None:
    result = run_blocked("import numpy")
    assert result.returncode == 1
    assert "numpy is not to be imported here" in result.stderr


def test_package_imports_without_heavy_libraries() -> None:
    result = run_blocked("import segquant_trt; print(segquant_trt.__version__)")
    assert result.returncode == 0, result.stderr


def test_help_of_the_group_without_heavy_libraries() -> None:
    result = run_blocked("from segquant_trt.cli.app import main; sys.exit(main(['--help']))")
    assert result.returncode == 0, result.stderr
    assert all(entry.name in result.stdout for entry in COMMANDS)


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS])
def test_help_of_a_command_without_heavy_libraries(name: str) -> None:
    result = run_blocked(
        f"from segquant_trt.cli.app import main; sys.exit(main([{name!r}, '--help']))"
    )
    assert result.returncode == 0, result.stderr
    assert f"Usage: segquant-trt {name} " in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["-c", "import segquant_trt"], ["-m", "segquant_trt.cli", "--help"]],
    ids=["import", "help"],
)
def test_start_is_fast(arguments: list[str]) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - start

    # The fastest of several: other work on the machine only ever adds time.
    assert min(seconds() for _ in range(5)) < LIMIT_SECONDS
