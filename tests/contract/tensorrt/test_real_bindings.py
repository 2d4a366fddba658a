"""The snapshots are what the real bindings offer, and our classes work in the real module."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.contract.tensorrt.environments import (
    ENVIRONMENTS,
    CannotFetch,
    Environment,
    make_environment,
    snapshot_of,
)
from tests.contract.tensorrt.fake import VERSIONS, load_snapshot

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]
GPU_HERE = Path("/dev/nvidiactl").exists()
Install: TypeAlias = Callable[[Environment], Path]


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Make an environment, once."""

    @functools.cache
    def make(chosen: Environment) -> Path:
        try:
            return make_environment(chosen, tmp_path_factory.mktemp("tensorrt"))
        except CannotFetch as error:
            pytest.skip(str(error))

    return make


def version_of(chosen: Environment) -> str:
    return chosen.version


@pytest.fixture(params=ENVIRONMENTS, ids=version_of)
def environment(request: pytest.FixtureRequest, install: Install) -> tuple[Environment, Path]:
    return request.param, install(request.param)


@pytest.fixture(params=[each for each in ENVIRONMENTS if each.lean], ids=version_of)
def lean(request: pytest.FixtureRequest, install: Install) -> Path:
    """One with the lean runtime behind the bindings."""
    return install(request.param)


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_environments_are_those_of_the_snapshots() -> None:
    assert tuple(each.version for each in ENVIRONMENTS) == VERSIONS


def test_snapshot_is_what_the_bindings_offer(environment: tuple[Environment, Path]) -> None:
    chosen, folder = environment
    assert json.loads(snapshot_of(folder)) == load_snapshot(chosen.version)


# Our logger and monitor derive from TensorRT's own classes, which is where C++ would call them.
OWN_CLASSES = """
import tensorrt as trt
from segquant_trt.backends.tensorrt.builder.monitor import BuildMonitor, tensorrt_monitor
from segquant_trt.backends.tensorrt.installed import shared_log, tensorrt_module
from segquant_trt.records.progress import Silent

module = tensorrt_module()
log = shared_log()
logger = log.logger(module)
logger.log(trt.ILogger.Severity.WARNING, "careful")
assert log.warnings == ["careful"]
assert log.logger(module) is logger

monitor = BuildMonitor(Silent())
steps = tensorrt_monitor(module, monitor)
assert isinstance(steps, trt.IProgressMonitor)
steps.phase_start("all", None, 2)
assert steps.step_complete("all", 0)
assert monitor.fraction == 0.5
monitor.cancel()
assert not steps.step_complete("all", 1)
"""


def test_own_classes_in_the_real_module(environment: tuple[Environment, Path]) -> None:
    found = python(environment[1], "-c", OWN_CLASSES)
    assert found.returncode == 0, found.stderr


WITHOUT_GPU = """
from segquant_trt.backends.tensorrt.installed import installed
from segquant_trt.errors import SegQuantError
try:
    installed()
except SegQuantError as error:
    print(error.what)
"""


def test_without_a_gpu_there_is_an_error_and_no_crash(
    environment: tuple[Environment, Path],
) -> None:
    found = python(environment[1], "-c", WITHOUT_GPU)
    assert found.returncode == 0, found.stderr
    if GPU_HERE:
        assert not found.stdout
    else:
        assert "no NVIDIA driver" in found.stdout or "no GPU can be used" in found.stdout


def test_tensorrt_itself_crashes_there(lean: Path) -> None:
    """Why devices are looked for first: once this fails, that may be done more simply."""
    found = python(lean, "-c", "import tensorrt as t; t.Runtime(t.Logger())")
    assert found.returncode == 0 if GPU_HERE else found.returncode < 0  # killed by a signal


def test_plugin_registry_of_the_real_runtime(lean: Path, tmp_path: Path) -> None:
    library = tmp_path / "nothing.so"
    source = tmp_path / "nothing.c"
    source.write_text('char const marks[] = "\\0getCreators\\0"; void missing(void); '
                      'void use(void) { missing(); }\n')  # fmt: skip
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-z,now", "-o", library, source], check=True)
    code = f"""
from pathlib import Path
import tensorrt
from segquant_trt.backends.tensorrt.builder.plugin_libraries import load_libraries
from segquant_trt.backends.tensorrt.installed import Installed, Log
from segquant_trt.errors import SegQuantError
found = Installed(module=tensorrt, version=tensorrt.__version__, device=None, log=Log())
try:
    load_libraries(found, tensorrt.get_plugin_registry(), [Path({str(library)!r})])
except SegQuantError as error:
    print(error.what)
"""
    found = python(lean, "-c", code)
    assert found.returncode == 0, found.stderr
    assert "cannot be loaded" in found.stdout
    assert "undefined symbol: missing" in found.stdout
