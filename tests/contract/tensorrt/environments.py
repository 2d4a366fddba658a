"""The real bindings of TensorRT from PyPI, made importable on a machine without a GPU.

The wheels `tensorrt-cu1x-bindings` need libnvinfer, whose builder is not on PyPI. The lean
runtime is, for newer versions; a shim of a few lines re-exports it and adds what it lacks, and a
package `tensorrt` re-exports the bindings, as the one that users install does.

    python -m tests.contract.tensorrt.environments

writes the snapshots anew, from all versions: add one to `ENVIRONMENTS` and to `fake.VERSIONS`.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SHIM = Path(__file__).with_name("shim.c")
INTROSPECT = Path(__file__).with_name("introspect.py")
_FACADE = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"


@dataclass(frozen=True)
class Environment:
    """A version to fetch; `lean`: with the lean runtime behind it."""

    version: str
    cuda: int
    lean: bool = False

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]


ENVIRONMENTS = (
    Environment("10.9.0.34", cuda=12),
    Environment("10.13.3.9.post1", cuda=13),
    Environment("10.16.1.11", cuda=13, lean=True),
    Environment("11.0.0.114", cuda=13),
    Environment("11.4.0.106", cuda=13, lean=True),
)


class CannotFetch(Exception):
    """PyPI, or a C compiler, is out of reach."""


def make_environment(chosen: Environment, folder: Path) -> Path:
    """Install into `folder`, which is then to be put on PYTHONPATH."""
    wheels = [f"tensorrt-cu{chosen.cuda}-bindings=={chosen.version}"]
    if chosen.lean:
        wheels.append(f"tensorrt-lean-cu{chosen.cuda}-libs=={chosen.version}")
    _run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--target", str(folder), *wheels,
    )  # fmt: skip
    bindings = folder / "tensorrt_bindings"
    _library(bindings / f"libnvinfer.so.{chosen.major}", _shim_options(chosen, folder), SHIM)
    empty = folder / "empty.c"
    empty.write_text("int nothing_is_here;\n")
    for name in ("libnvonnxparser", "libnvinfer_plugin"):
        _library(bindings / f"{name}.so.{chosen.major}", [], empty)
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.py").write_text(_FACADE)
    return folder


def _shim_options(chosen: Environment, folder: Path) -> list[str]:
    if not chosen.lean:
        return ["-DALONE"]
    lean = next((folder / "tensorrt_lean_libs").glob("libnvinfer_lean.so.*"))
    return [
        "-Wl,--no-as-needed",
        f"-L{lean.parent}",
        f"-l:{lean.name}",
        f"-Wl,-rpath,{lean.parent}",
    ]


def _library(path: Path, options: list[str], source: Path) -> None:
    _run(
        "cc", "-shared", "-fPIC", "-o", str(path), f"-Wl,-soname,{path.name}", str(source), *options
    )


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise CannotFetch(f"{command[0]} is not here") from error
    except subprocess.CalledProcessError as error:
        raise CannotFetch(f"{' '.join(command)}: {error.stderr.strip()[-500:]}") from error


def snapshot_of(folder: Path) -> str:
    """What the bindings in `folder` offer, as JSON; see `introspect`."""
    return subprocess.run(
        [sys.executable, str(INTROSPECT)], env=os.environ | {"PYTHONPATH": str(folder)},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def main() -> None:
    for chosen in ENVIRONMENTS:
        with tempfile.TemporaryDirectory() as place:
            text = snapshot_of(make_environment(chosen, Path(place)))
        path = SHIM.parent / "snapshots" / f"{chosen.version}.json.gz"
        path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
