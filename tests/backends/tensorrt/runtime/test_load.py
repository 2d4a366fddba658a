"""Engines that do not fit here are told apart before TensorRT is constructed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from segquant_trt.backends.tensorrt.builder.build import build_engine
from segquant_trt.backends.tensorrt.device import Device
from segquant_trt.backends.tensorrt.installed import Installed, Log
from segquant_trt.backends.tensorrt.runtime import load_engine
from segquant_trt.backends.tensorrt.runtime.engine_file import check_free_memory, read_info
from segquant_trt.backends.tensorrt.runtime.refit import give_weights, refit_engine
from segquant_trt.errors import SegQuantError
from tests.backends.tensorrt.plugin_files import shared_library
from tests.backends.tensorrt.runtime.simulated import loaded, tensorrt
from tests.contract.tensorrt.fake import VERSIONS, Script
from tests.contract.tensorrt.workbench import bench, device, request

NEWEST = VERSIONS[-1]


@dataclass
class Built:
    """An engine on disk and what it can be loaded with."""

    path: Path
    onnx: Path

    def load(
        self, *, on: Device | None = None, version: str = NEWEST, **options: Any
    ) -> tuple[Any, Script]:
        found, script = bench(version)
        found = Installed(
            module=found.module, version=version, device=on or found.device, log=Log()
        )
        script.answers["ICudaEngine.get_tensor_profile_shape"] = [(1, 64), (8, 64), (17, 64)]
        script.answers["ICudaEngine.num_optimization_profiles"] = 1
        return load_engine(self.path, tensorrt=found, **options), script

    def rewrite(self, **changes: Any) -> None:
        path = self.path.with_name(self.path.name + ".json")
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


Make = Callable[..., Built]


@pytest.fixture
def build(tmp_path: Path) -> Make:
    def made(*, version: str = NEWEST, **options: Any) -> Built:
        wanted = request(tmp_path, **options)
        found, _ = bench(version)
        build_engine(wanted, tensorrt=found)
        return Built(wanted.engine, wanted.onnx)

    return made


def test_an_engine_is_loaded_where_it_was_built(build: Make) -> None:
    engine, script = build().load()
    assert [each.name for each in engine.inputs] == ["x"]
    assert [each.name for each in engine.outputs] == ["y"]
    (profile,) = engine.profiles
    assert profile.inputs[0].maximum == (17, 64)
    assert script.of("Runtime.engine_host_code_allowed=") == [{"value": False}]


GPUS = {
    "another model": (device(name="NVIDIA H200"), "built on NVIDIA H100 .* here is NVIDIA H200"),
    "another capability": (
        device(name="NVIDIA L40S", compute_capability=(8, 9)), r"compute capability 9.0\).*8.9",
    ),
    "an older driver": (device(cuda=(12, 8), driver="570.1"), "supports CUDA 12.8"),
}  # fmt: skip


@pytest.mark.parametrize("fault", GPUS)
def test_an_engine_for_another_gpu_or_driver(fault: str, build: Make) -> None:
    other, told = GPUS[fault]
    with pytest.raises(SegQuantError, match=told) as caught:
        build().load(on=other)
    assert "build it again on this machine: trtexec --onnx=" in caught.value.hint


@pytest.mark.parametrize(
    ("level", "other", "fits"),
    [
        ("same_compute_capability", device(name="NVIDIA H200"), True),
        ("same_compute_capability", device(compute_capability=(10, 0)), False),
        ("ampere_plus", device(name="NVIDIA A10", compute_capability=(8, 6)), True),
        ("ampere_plus", device(name="Tesla T4", compute_capability=(7, 5)), False),
    ],
)
def test_hardware_compatible_engines(level: str, other: Device, fits: bool, build: Make) -> None:
    built = build(hardware_compatibility=level)
    if fits:
        built.load(on=other)
        return
    with pytest.raises(SegQuantError, match="was built on"):
        built.load(on=other)


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[3]])
def test_an_engine_of_another_version(version: str, build: Make) -> None:
    with pytest.raises(SegQuantError, match=f"built with TensorRT {NEWEST} .*here is {version}"):
        build().load(version=version)


def test_version_compatible_engines(build: Make) -> None:
    built = build(version=VERSIONS[3], version_compatible=True)
    with pytest.raises(SegQuantError, match="carries code") as caught:
        built.load()
    assert "trust=True" in caught.value.hint
    _, script = built.load(trust=True)
    assert script.of("Runtime.engine_host_code_allowed=") == [{"value": True}]
    with pytest.raises(SegQuantError, match="needs a TensorRT that is not older"):
        built.load(version=VERSIONS[0], trust=True)


def test_files_that_are_missing_cut_off_or_changed(build: Make) -> None:
    built = build()
    whole = built.path.read_bytes()
    for content, told in (
        (b"", "is empty"),
        (whole[:-1], "is cut off: 18 bytes of 19"),
        (whole + b"x", "longer than it was"),
        (whole[:-1] + b"!", "their sha256 differ"),
    ):
        built.path.write_bytes(content)
        with pytest.raises(SegQuantError, match=told):
            built.load()
    built.path.unlink()
    with pytest.raises(SegQuantError, match="there is no engine"):
        built.load()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read"),
        ("\xff", "cannot be read"),
        ("[]", "schema_version None"),
        ('{"schema_version": 2}', "schema_version 2; this program reads 1"),
        ('{"schema_version": 1}', "small.engine.json is not a valid EngineInfo"),
        ('{"schema_version": 1, "tensorrt": 3}', "small.engine.json"),
    ],
)
def test_damaged_records(text: str, told: str, build: Make) -> None:
    built = build()
    built.path.with_name("small.engine.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SegQuantError, match=told):
        built.load()


def test_records_that_were_edited(build: Make) -> None:
    for changes in (
        {"cuda": "nonsense"},
        {"command": "trtexec '--onnx"},
        {"compute_capability": ""},
        {"tensorrt": "x.y"},
    ):
        built = build()
        built.rewrite(**changes)
        with contextlib.suppress(SegQuantError):  # and nothing else
            built.load(on=device(name="NVIDIA H200"))
        with contextlib.suppress(SegQuantError):
            built.load()


def test_memory_that_does_not_suffice(build: Make) -> None:
    built = build(weight_streaming=True)
    built.rewrite(device_memory_bytes=2**30)
    small = device(free_bytes=3 * 2**30)
    built.load(on=small, contexts=2)
    built.load(on=device(free_bytes=None), contexts=4)
    with pytest.raises(SegQuantError, match=r"4.00 GiB .* 4 context.*; 3.00 GiB are free"):
        built.load(on=small, contexts=4)


def test_streamed_weights_need_no_more_than_their_budget(build: Make) -> None:
    built = build(weight_streaming=True)
    info = read_info(built.path)
    assert info is not None
    large = replace(info, engine_bytes=10 * 2**30, device_memory_bytes=2**30)
    small = device(free_bytes=3 * 2**30)
    check_free_memory(built.path, large, small, 1, 2 * 2**30)
    with pytest.raises(SegQuantError, match=r"11\.00 GiB") as caught:
        check_free_memory(built.path, large, small, 1, None)
    assert "weight_budget" in caught.value.hint


def test_plugins_that_an_engine_needs(build: Make, tmp_path: Path) -> None:
    library = shared_library(tmp_path / "libours.so", ["89", "90"])
    built = build(plugins=(library,))
    _, script = built.load(plugins=[library])
    assert script.of("IPluginRegistry.load_library") == [{"plugin_path": str(library)}]
    with pytest.raises(SegQuantError, match=r"needs the plugin library libours\.so"):
        built.load()
    shared_library(library, ["90", "100"])
    with pytest.raises(SegQuantError, match=r"not the library that .* was built with"):
        built.load(plugins=[library])


def test_plugins_are_given_to_the_runtime_that_reads_a_new_engine_too(tmp_path: Path) -> None:
    library = shared_library(tmp_path / "libours.so", ["90"])
    found, script = bench(NEWEST)
    build_engine(request(tmp_path, plugins=(library,)), tensorrt=found)
    assert len(script.of("IPluginRegistry.load_library")) == 2
    at = script.names().index
    assert at("Runtime.get_plugin_registry") < at("Runtime.deserialize_cuda_engine")


def test_plugins_are_looked_at_before_an_engine_is_loaded(tmp_path: Path) -> None:
    found, script = tensorrt()
    other = shared_library(tmp_path / "libother.so", ["80"])
    with pytest.raises(SegQuantError, match="has code for sm_80; NVIDIA H100 PCIe needs sm_90"):
        loaded(tmp_path, found, plugins=[other])
    assert script.names() == []


def test_plugins_that_an_engine_carries_are_not_given_twice(tmp_path: Path) -> None:
    library = shared_library(tmp_path / "libours.so", ["90"])
    found, script = bench(NEWEST)
    carrying = request(
        tmp_path, plugins=(library,), serialize_plugins=True, version_compatible=True
    )
    build_engine(carrying, tensorrt=found)
    assert len(script.of("IPluginRegistry.load_library")) == 1
    assert script.of("IBuilderConfig.plugins_to_serialize=") == [{"value": [str(library)]}]


def test_plugins_that_an_engine_carries_need_not_be_given(build: Make, tmp_path: Path) -> None:
    library = shared_library(tmp_path / "libours.so", ["90"])
    built = build(plugins=(library,), serialize_plugins=True, version_compatible=True)
    _, script = built.load(trust=True)
    assert script.of("IPluginRegistry.load_library") == []


def test_what_tensorrt_refuses(tmp_path: Path) -> None:
    found, script = tensorrt()

    def refuse(this: object, serialized_engine: memoryview) -> None:
        assert bytes(serialized_engine) == b"anything"
        found.log.write(1, "magicTag == kEXPECTED_MAGIC_TAG failed")

    script.answers["Runtime.deserialize_cuda_engine"] = refuse
    with pytest.raises(SegQuantError, match=r"refuses .*foreign\.engine: magicTag"):
        loaded(tmp_path, found)


def test_a_runtime_that_cannot_be_made(tmp_path: Path) -> None:
    def init(this: object, logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    found, _ = tensorrt(answers={"Runtime.__init__": init})
    with pytest.raises(SegQuantError, match="cannot start on"):
        loaded(tmp_path, found)


def test_inputs_on_the_host_are_not_served(tmp_path: Path) -> None:
    found, script = tensorrt()
    host = found.module.TensorLocation.HOST
    script.answers["ICudaEngine.get_tensor_location"] = host
    with pytest.raises(SegQuantError, match="'x' is a shape on the host"):
        loaded(tmp_path, found)


def test_weight_budget(tmp_path: Path) -> None:
    found, script = tensorrt(answers={"ICudaEngine.streamable_weights_size": 1000})
    loaded(tmp_path, found, weight_budget=10)
    assert script.of("ICudaEngine.weight_streaming_budget_v2=") == [{"value": 10}]
    with pytest.raises(SegQuantError, match="streams 0 to 1000"):
        loaded(tmp_path, found, weight_budget=1001)
    found, _ = tensorrt()
    with pytest.raises(SegQuantError, match="does not stream weights"):
        loaded(tmp_path, found, weight_budget=10)


def test_refitting_with_identical_weights(build: Make, tmp_path: Path) -> None:
    built = build(refit="identical", strip_weights=True)
    engine, script = built.load()
    with pytest.raises(SegQuantError, match="without its weights"):
        give_weights(engine, built.path, None)
    give_weights(engine, built.path, built.onnx)
    (given,) = script.of("OnnxParserRefitter.refit_from_bytes")
    assert given["model"] == built.onnx.read_bytes()
    assert Path(given["path"]).parent == tmp_path
    assert script.names()[-1] == "Refitter.refit_cuda_engine"

    (tmp_path / "weights.bin").write_bytes(bytes(64 * 48))
    with pytest.raises(SegQuantError, match="are not those that the engine was built with"):
        give_weights(engine, built.path, built.onnx)


REFITS: dict[str, tuple[dict[str, Any], str]] = {
    "not built for it": ({"ICudaEngine.refittable": False}, "was not built for taking weights"),
    "refused": ({"OnnxParserRefitter.refit_from_bytes": False}, "cannot take the weights"),
    "some missing": ({"Refitter.get_missing_weights": ["w7"]}, r"lacks 1 weight\(s\) .*: w7"),
    "failed": ({"Refitter.refit_cuda_engine": False}, "cannot refit"),
}


@pytest.mark.parametrize("fault", REFITS)
def test_refits_that_fail(fault: str, build: Make, tmp_path: Path) -> None:
    answers, told = REFITS[fault]
    built = build(refit="any")
    engine, script = built.load()
    script.answers |= answers
    with pytest.raises(SegQuantError, match=told):
        refit_engine(engine, built.onnx)
