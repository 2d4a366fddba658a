"""Packages of files that stand for engines: no TensorRT is here, and none is needed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from segquant_trt.package import EngineFile, EnginePackage, EngineProfile
from segquant_trt.records import TensorSpec

Shapes = dict[str, tuple[int, ...]]


def engine_file(folder: Path, *capabilities: str) -> EngineFile:
    folder.mkdir(parents=True, exist_ok=True)
    data = f"engine for {', '.join(capabilities)}".encode()
    path = folder / f"{capabilities[0]}.engine"
    path.write_bytes(data)
    return EngineFile(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        compute_capabilities=capabilities,
    )


def unet_package(folder: Path, *, plugin: bool = False) -> EnginePackage:
    """Two engines, two profiles: guidance at one size, and many samples at larger ones."""

    def shapes(samples: int, side: int, tokens: int) -> Shapes:
        return {
            "sample": (samples, 4, side, side),
            "timestep": (samples,),
            "encoder_hidden_states": (samples, tokens, 768),
        }

    library = folder / "libsegquant.so"
    engines = (engine_file(folder, "8.0"), engine_file(folder, "8.9", "12.0"))
    if plugin:
        library.write_bytes(b"code")
    return EnginePackage(
        name="unet",
        source="someone/stable-diffusion",
        inputs=(
            TensorSpec(name="sample", dtype="float16", shape=("batch", 4, "height", "width")),
            TensorSpec(name="timestep", dtype="float32", shape=("batch",)),
            TensorSpec(
                name="encoder_hidden_states", dtype="float16", shape=("batch", "text", 768)
            ),
        ),
        output=TensorSpec(name="out", dtype="float16", shape=("batch", 4, "height", "width")),
        timestep="timestep",
        profiles=(
            EngineProfile(minimum=shapes(1, 64, 77), optimum=shapes(2, 64, 77),
                          maximum=shapes(2, 64, 154)),
            EngineProfile(minimum=shapes(1, 64, 77), optimum=shapes(8, 96, 77),
                          maximum=shapes(8, 128, 154)),
        ),
        engines=engines,
        tensorrt_version="10.13.2",
        plugin_libraries=(library,) if plugin else (),
    )  # fmt: skip


def flux_package(folder: Path) -> EnginePackage:
    """Samples share the positions of tokens."""

    def shapes(samples: int, tokens: int) -> Shapes:
        return {
            "hidden_states": (samples, tokens, 64),
            "timestep": (samples,),
            "img_ids": (tokens, 3),
        }

    return EnginePackage(
        name="flux",
        source="someone/flux",
        inputs=(
            TensorSpec(name="hidden_states", dtype="bfloat16", shape=("batch", "tokens", 64)),
            TensorSpec(name="timestep", dtype="float32", shape=("batch",)),
            TensorSpec(name="img_ids", dtype="float32", shape=("tokens", 3)),
        ),
        output=TensorSpec(name="out", dtype="bfloat16", shape=("batch", "tokens", 64)),
        timestep="timestep",
        profiles=(
            EngineProfile(
                minimum=shapes(1, 1024), optimum=shapes(1, 4096), maximum=shapes(2, 4096)
            ),
        ),
        engines=(engine_file(folder, "9.0"),),
        tensorrt_version="10.13.2",
    )
