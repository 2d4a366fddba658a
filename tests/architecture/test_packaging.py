"""The wheel and the sdist hold what a user needs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGE, ROOT, tracked_files

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel built from it, without a second environment."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


def test_wheel_holds_the_whole_package(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith("segquant_trt/")}
    tracked = {
        path.relative_to(ROOT).as_posix() for path in tracked_files() if PACKAGE in path.parents
    }
    assert inside == tracked
    for ending in ("py.typed", ".safetensors", ".html.j2", "prompts.txt"):
        assert any(name.endswith(ending) for name in inside), f"no {ending} in the wheel"


def test_sdist_holds_the_sources_and_nothing_made(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert any(name.startswith("tests/") for name in names)
    assert names - {"PKG-INFO"} <= tracked


def test_installed_wheel_runs(distributions: dict[str, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "fresh", with_pip=False)
    python = tmp_path / "fresh" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         "--no-index", distributions["wheel"]],
        check=True,
    )  # fmt: skip
    # The dependencies are this environment's; its editable install is not seen through PYTHONPATH.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sorted(paths))}

    def output_of(*command: str | Path) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment
        ).stdout

    where = output_of(python, "-c", "import segquant_trt; print(segquant_trt.__file__)")
    assert Path(where).is_relative_to(tmp_path / "fresh")
    assert "compile" in output_of(python.with_name("segquant-trt"), "--help")
