"""The whole build, against fakes of every version that raise on whatever that version lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segquant_trt.backends.tensorrt.builder.build import build_engine
from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import from_plain
from segquant_trt.records.engine import EngineInfo, PoolLimit
from segquant_trt.records.files import sha256_bytes
from tests.contract.tensorrt.fake import VERSIONS
from tests.contract.tensorrt.scenario import PLAN
from tests.contract.tensorrt.workbench import GPU, NODE, PROFILE, bench, request

NEWEST = VERSIONS[-1]
EVERYTHING = {
    "optimization_level": 3, "tiling_level": 2, "max_tactics": 9, "timing_iterations": 2,
    "max_aux_streams": 0, "hardware_compatibility": "ampere_plus", "version_compatible": True,
    "exclude_lean_runtime": True, "refit": "identical", "strip_weights": True,
    "weight_streaming": True, "pools": (PoolLimit(pool="workspace", size_bytes=2**30),),
}  # fmt: skip


class Notes:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.shares: list[int] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, label: str, done: int, total: int | None) -> None:
        assert total is not None
        self.shares.append(done)


@pytest.mark.parametrize("version", VERSIONS)
def test_build_with_defaults(version: str, tmp_path: Path) -> None:
    tensorrt, script = bench(version)
    notes = Notes()
    result = build_engine(request(tmp_path), tensorrt=tensorrt, progress=notes)

    flag = tensorrt.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert script.of("Builder.create_network") == [{"flags": 1 << int(flag)}]
    parsed = script.of("OnnxParser.parse")[0]
    assert parsed["model"] == (tmp_path / "small.onnx").read_bytes()
    assert Path(parsed["path"]).parent == tmp_path
    bounds = PROFILE.inputs[0]
    assert script.of("IOptimizationProfile.set_shape") == [
        {"input": "x", "min": bounds.minimum, "opt": bounds.optimum, "max": bounds.maximum}
    ]
    assert script.of("IBuilderConfig.set_flag") == []
    detailed = tensorrt.module.ProfilingVerbosity.DETAILED
    assert script.of("IBuilderConfig.profiling_verbosity=") == [{"value": detailed}]

    assert (tmp_path / "small.engine").read_bytes() == PLAN
    info = from_plain(
        json.loads((tmp_path / "small.engine.json").read_text()), EngineInfo, origin="info"
    )
    assert info == result.engine.info
    assert (info.tensorrt, info.gpu, info.compute_capability) == (version, GPU.name, "9.0")
    assert info.engine_sha256 == sha256_bytes(PLAN)
    assert [(each.name, each.mode, each.shape) for each in info.tensors] == [
        ("x", "input", (-1, 64)),
        ("y", "output", (-1, 48)),
    ]
    assert str(tmp_path) not in (tmp_path / "small.engine.json").read_text()
    assert info.command.startswith("trtexec --onnx=small.onnx --saveEngine=small.engine ")
    assert "--maxShapes=x:17x64" in info.command
    assert "Layers" in json.loads((tmp_path / "small.engine.layers.json").read_text())
    assert result.proofs[NODE].integer
    assert result.proofs[NODE].precision == "int8"
    assert result.fallen == ()
    assert notes.shares[-1] == 1000
    assert notes.shares == sorted(notes.shares)
    assert any(text.startswith("the same with trtexec: trtexec --onnx=") for text in notes.notes)


@pytest.mark.parametrize("version", VERSIONS)
def test_build_with_every_option(version: str, tmp_path: Path) -> None:
    tensorrt, script = bench(
        version, {"OnnxParser.get_used_vc_plugin_libraries": ["/somewhere/libnvinfer_vc_plugin.so"]}
    )
    build_engine(
        request(tmp_path, verbose_log=tmp_path / "log" / "build.txt", **EVERYTHING),
        tensorrt=tensorrt,
    )
    flags = [each["flag"].name for each in script.of("IBuilderConfig.set_flag")]
    assert flags == [
        "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME", "REFIT_IDENTICAL", "STRIP_PLAN",
        "WEIGHT_STREAMING",
    ]  # fmt: skip
    assert script.of("IBuilderConfig.builder_optimization_level=") == [{"value": 3}]
    levels = tensorrt.module.TilingOptimizationLevel
    assert script.of("IBuilderConfig.tiling_optimization_level=") == [{"value": levels.MODERATE}]
    hardware = tensorrt.module.HardwareCompatibilityLevel.AMPERE_PLUS
    assert script.of("IBuilderConfig.hardware_compatibility_level=") == [{"value": hardware}]
    pool = tensorrt.module.MemoryPoolType.WORKSPACE
    assert script.of("IBuilderConfig.set_memory_pool_limit") == [{"pool": pool, "pool_size": 2**30}]
    assert script.of("IBuilderConfig.plugins_to_serialize=") == [
        {"value": ["/somewhere/libnvinfer_vc_plugin.so"]}
    ]
    # What was built here is trusted with its own code.
    assert script.of("Runtime.engine_host_code_allowed=") == [{"value": True}]
    assert (tmp_path / "log" / "build.txt").exists()


def test_every_error_of_the_parser_is_told_with_its_node(tmp_path: Path) -> None:
    def error(node: str, code: str) -> dict[str, object]:
        codes = tensorrt.module.ErrorCode
        return {
            "desc": f"{node} is wrong", "node_name": node, "node_operator": "Einsum",
            "local_function_stack": ["outer", "inner"] if node == "b" else [],
            "code": getattr(codes, code),
        }  # fmt: skip

    tensorrt, script = bench(NEWEST)
    errors = [error("a", "UNSUPPORTED_NODE"), error("b", "INVALID_NODE")]
    tensorrt, script = bench(NEWEST, parser_errors=errors)
    with pytest.raises(SegQuantError) as caught:
        build_engine(request(tmp_path), tensorrt=tensorrt)
    assert "node 'a' (Einsum): a is wrong" in caught.value.what
    assert "node 'b' (Einsum): b is wrong [in outer > inner]" in caught.value.what
    assert "no such operator" in caught.value.hint
    assert "Builder.build_serialized_network" not in script.names()


def test_a_build_that_tensorrt_gives_up(tmp_path: Path) -> None:
    def create_cache(this: object, serialized_timing_cache: bytes) -> None:
        tensorrt.log.write(1, "came to nothing")

    def serialize(this: object, network: object, config: object, **_: object) -> None:
        tensorrt.log.write(1, "Could not find any implementation for node m: out of memory")

    tensorrt, script = bench(NEWEST, {"Builder.build_serialized_network": serialize})
    script.answers["IBuilderConfig.set_timing_cache"] = True
    script.answers["IBuilderConfig.create_timing_cache"] = lambda this, **given: (
        create_cache(this, **given) or script.answers["world"].new("ITimingCache")
    )
    tensorrt.log.errors.append("left from before")
    with pytest.raises(SegQuantError, match="Could not find any implementation") as caught:
        build_engine(request(tmp_path), tensorrt=tensorrt)
    assert "workspace" in caught.value.hint
    assert "left from before" not in caught.value.what
    assert "came to nothing" not in caught.value.what
    assert not (tmp_path / "small.engine").exists()


def test_a_site_that_fell_back_is_an_error_unless_allowed(tmp_path: Path) -> None:
    tensorrt, _ = bench(NEWEST, dtype="Half")
    with pytest.raises(SegQuantError, match=f"{NODE}: gemm float16"):
        build_engine(request(tmp_path), tensorrt=tensorrt)
    assert not list(tmp_path.glob("small.engine*"))
    notes = Notes()
    tensorrt, _ = bench(NEWEST, dtype="Half")
    allowed = request(tmp_path, allow_fallback=True)
    result = build_engine(allowed, tensorrt=tensorrt, progress=notes)
    assert result.fallen == (f"{NODE}: gemm float16 x float16",)
    assert f"not in 8 bits: {result.fallen[0]}" in notes.notes


@pytest.mark.parametrize("answer", ["none", "raises"])
def test_a_builder_that_cannot_be_made(answer: str, tmp_path: Path) -> None:
    def init(this: object, logger: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    tensorrt, _ = bench(NEWEST, {"Builder.__init__": init})
    if answer == "none":
        tensorrt.module.Builder = lambda logger: None
    with pytest.raises(SegQuantError, match="cannot start on NVIDIA H100"):
        build_engine(request(tmp_path), tensorrt=tensorrt)


def test_an_engine_that_tensorrt_cannot_read_back(tmp_path: Path) -> None:
    tensorrt, _ = bench(NEWEST, {"Runtime.deserialize_cuda_engine": None})
    with pytest.raises(SegQuantError, match="an engine that it cannot read"):
        build_engine(request(tmp_path), tensorrt=tensorrt)
    assert not (tmp_path / "small.engine").exists()
