"""Bad inputs and environment faults of GPUs: one clear error each, never a crash or a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from segquant_trt.records.codec import to_plain
from segquant_trt.records.engine import EngineInfo, EngineTensor, PluginLibrary
from segquant_trt.records.files import sha256_bytes
from tests.backends.tensorrt import fault_child
from tests.backends.tensorrt.made_up_driver import ROOT, build_driver
from tests.contract.tensorrt.fake import VERSIONS

PLAN = b"an engine of nobody"
# The made-up GPU: an Ada card of 24 GiB, 20 of them free, with a driver for CUDA 13.0.
INFO = EngineInfo(
    tensorrt=VERSIONS[-1], gpu="NVIDIA Made-Up 1000", compute_capability="8.9",
    driver="580.65.06", cuda="13.0", engine_sha256=sha256_bytes(PLAN), engine_bytes=len(PLAN),
    onnx_sha256="0" * 64, weights_sha256=None, hardware_compatibility="none",
    version_compatible=False, weights_stripped=False, weight_streaming=False, refit="none",
    profiles=(), plugins=(), device_memory_bytes=2**20, command="trtexec --onnx=m.onnx",
    tensors=(EngineTensor(name="x", mode="input", dtype="float16", shape=(-1, 64)),),
)  # fmt: skip
SHARED = "from tests.backends.tensorrt.plugin_files import shared_library\n"
LARGE = """
huge = ShapeRange(name="x", minimum=(1, 64), optimum=(1, 64), maximum=(10**9, 64))
build(folder, profiles=(ShapeProfile(inputs=(huge,)),))
"""


def engine(plan: bytes = PLAN, **changes: Any) -> str:
    """Code that writes an engine with a record, and opens it."""
    plain = to_plain(replace(INFO, **changes))
    return (
        f"path = folder / 'm.engine'\npath.write_bytes({plan!r})\n"
        f"(folder / 'm.engine.json').write_text({json.dumps(plain)!r})\n"
        "open_engine(path)"
    )


BUILD = "build(folder)"
# By name: code, what the driver answers, and what the error says.
FAULTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no driver": (
        "device.CUDA_LIBRARY = 'libcuda.so.none'\nbuild(folder)", {}, "there is no NVIDIA driver",
    ),
    "no device": (BUILD, {"INIT": 100}, "the driver finds no CUDA device"),
    "all devices hidden": (BUILD, {"COUNT": 0}, "the driver finds no CUDA device"),
    "driver for an older CUDA": (BUILD, {"CUDA": 12040}, "supports CUDA up to 12.4, but"),
    "driver and kernel module differ": (BUILD, {"INIT": 803}, "are of different versions"),
    "the toolkit's stub": (BUILD, {"INIT": 34}, "is the stub"),
    "GPU fell off the bus": (BUILD, {"ATTRIBUTE_CODE": 999}, "fails with error 999"),
    "GPU too old": (BUILD, {"CAPABILITY": 70}, "compute capability 7.0; TensorRT"),
    "FP8 on Ampere": ("build(folder, codes=17)", {"CAPABILITY": 86}, "no FP8 arithmetic"),
    "INT8 on B300": (BUILD, {"CAPABILITY": 103}, "10.3 has no fast INT8 arithmetic"),
    "package missing": (
        "sys.modules['tensorrt'] = None\nbuild(folder)", {}, "'tensorrt', which is not installed",
    ),
    "package too old": ("install('10.8.0.43')\nbuild(folder)", {}, "10.8.0.43 is installed; this"),
    "package too new": ("install('12.0.0.1')\nbuild(folder)", {}, "12.0.0.1 is installed; this"),
    "plugin missing": (
        "build(folder, plugins=(folder / 'p.so',))", {}, "p.so cannot be read: No such file",
    ),
    "plugin for another GPU": (
        SHARED + "build(folder, plugins=(shared_library(folder / 'p.so', ['90', '100']),))", {},
        "has code for sm_100, sm_90; NVIDIA Made-Up 1000 needs sm_89",
    ),
    "plugin for another processor": (
        SHARED + "build(folder, plugins=(shared_library(folder / 'p.so', ['89'], machine=8),))", {},
        "p.so is for machine 8",
    ),
    "plugin that is no library": (
        "(folder / 'p.so').write_text('text')\nbuild(folder, plugins=(folder / 'p.so',))", {},
        "is no 64-bit shared library",
    ),
    "library that is no plugin": (
        SHARED + "build(folder, plugins=(shared_library(folder / 'p.so', [], entry=b'm'),))", {},
        "brings no TensorRT plugin",
    ),
    "out of memory by forecast": (LARGE, {}, "20.00 GiB are free"),
    "no profile": ("build(folder, profiles=())", {}, "'x' has dynamic lengths"),
    "weights gone": (
        "r = workbench.request(folder)\n(folder / 'weights.bin').unlink()\nbuild_engine(r)", {},
        "weights.bin cannot be read",
    ),
    "graph cut off": (
        "r = workbench.request(folder)\nr.onnx.write_bytes(r.onnx.read_bytes()[:99])\n"
        "build_engine(r)",
        {}, "not a readable ONNX model",
    ),
    "log in a place that is none": (
        "build(folder, verbose_log=Path('/proc/none/log.txt'))", {}, "/proc/none/log.txt",
    ),
    "no engine": ("open_engine(folder / 'none.engine')", {}, "there is no engine"),
    "engine is a folder": ("open_engine(folder)", {}, "there is no engine"),
    "empty engine": (engine(b""), {}, "is empty"),
    "engine cut off": (engine(PLAN[:7]), {}, "is cut off: 7 bytes of 19"),
    "engine changed": (engine(PLAN[::-1]), {}, "their sha256 differ"),
    "record damaged": (
        engine().replace("open_engine", "(folder / 'm.engine.json').write_text('{')\nopen_engine"),
        {}, "m.engine.json cannot be read",
    ),
    "engine of another version": (
        engine(tensorrt="10.9.0.34"), {}, "built with TensorRT 10.9.0.34 and needs exactly that",
    ),
    "engine of another GPU": (engine(gpu="NVIDIA H100"), {}, "was built on NVIDIA H100"),
    "engine of another capability": (engine(compute_capability="9.0"), {}, "capability 9.0); here"),
    "engine for Ampere and newer": (
        engine(hardware_compatibility="ampere_plus"), {"CAPABILITY": 75}, "was built on",
    ),
    "engine of a newer driver": (
        engine(cuda="13.2"), {}, "a driver for CUDA 13.2; the driver here supports CUDA 13.0",
    ),
    "engine that carries code": (engine(version_compatible=True), {}, "it carries code"),
    "plugin that is not given": (
        engine(plugins=(PluginLibrary(name="ours.so", sha256="0"),)), {},
        "needs the plugin library ours.so",
    ),
    "engine that does not fit": (
        engine(device_memory_bytes=21 * 2**30), {}, "needs about 21.00 GiB of NVIDIA Made-Up",
    ),
    "engine without a device": (engine(), {"INIT": 100}, "the driver finds no CUDA device"),
    "engine with an old driver": (engine(), {"CUDA": 12090}, "supports CUDA up to 12.9"),
    "engine on a GPU too many": (
        engine().replace("open_engine(path)", "open_engine(path, device=1)"), {},
        "there is no GPU 1",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """By fault: exit status, error, hint."""
    driver = build_driver(tmp_path_factory.mktemp("driver"))
    cases = {name: {"code": code, "driver": told} for name, (code, told, _) in FAULTS.items()}
    cases["none"] = {"code": "build(folder)", "driver": {}}
    found = subprocess.run(
        [sys.executable, "-m", fault_child.__name__, str(tmp_path_factory.mktemp("faults"))],
        input=json.dumps(cases), capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    results: dict[str, tuple[int, str, str]] = json.loads(found.stdout)
    return results


@pytest.mark.parametrize("fault", FAULTS)
def test_one_clear_error(fault: str, outcomes: dict[str, tuple[int, str, str]]) -> None:
    status, what, hint = outcomes[fault]
    assert status == 0  # below zero: TensorRT was constructed; above: a traceback
    assert FAULTS[fault][2] in what
    assert hint


def test_without_a_fault_tensorrt_would_be_constructed(
    outcomes: dict[str, tuple[int, str, str]],
) -> None:
    assert outcomes["none"][0] < 0
