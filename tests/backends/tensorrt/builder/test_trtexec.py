"""trtexec's notation: what it means, what is refused, and that it round-trips."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.backends.tensorrt.builder import (
    make_profile,
    make_profiles,
    parse_pools,
    parse_shapes,
    trtexec_command,
)
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import BuildOptions, PoolLimit, ShapeProfile, ShapeRange


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("a:1x2,b:3", {"a": (1, 2), "b": (3,)}),
        ("x:17", {"x": (17,)}),
        ("added_cond_kwargs.text_embeds:2x1280", {"added_cond_kwargs.text_embeds": (2, 1280)}),
        ("input:0:1x3", {"input:0": (1, 3)}),
        ("'a,b':2x2,'c:d':1", {"a,b": (2, 2), "c:d": (1,)}),
        ("t:scalar,x:2", {"t": (), "x": (2,)}),
        ("x:0x4", {"x": (0, 4)}),
        (" a:1 , b:2 ", {"a": (1,), "b": (2,)}),
    ],
)
def test_shapes(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    assert parse_shapes(text) == shapes
    assert list(parse_shapes(text)) == list(shapes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x:1x",
        "x:ax2",
        "x:1,",
        ":1x2",
        "x:-1x2",
        "x=1x2",
        "'x:1",
        "x:1.5",
        "x:²",
    ],
)
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(SegQuantError, match="--minShapes has"):
        parse_shapes(text, flag="--minShapes")


def test_an_input_named_twice() -> None:
    with pytest.raises(SegQuantError, match="'x' twice"):
        parse_shapes("x:1,y:2,x:3")


def test_profiles_from_flags() -> None:
    profile = make_profile(minimum="x:1x4,y:1", optimum="x:2x4,y:1", maximum="x:8x4,y:2")
    assert profile == ShapeProfile(
        inputs=(
            ShapeRange(name="x", minimum=(1, 4), optimum=(2, 4), maximum=(8, 4)),
            ShapeRange(name="y", minimum=(1,), optimum=(1,), maximum=(2,)),
        )
    )
    fixed = make_profile(optimum="x:3x4").inputs[0]
    assert fixed.minimum == fixed.optimum == fixed.maximum == (3, 4)
    assert make_profile(minimum="x:1", maximum="x:9").inputs[0].optimum == (9,)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({}, "has no shapes"),
        ({"minimum": "x:1", "maximum": "y:1"}, "'x' is in --minShapes and not in --maxShapes"),
        ({"optimum": "x:1", "maximum": "x:1,y:1"}, "'y' is in --maxShapes and not in --optShapes"),
        ({"minimum": "x:4", "maximum": "x:2"}, "axis 0 of input 'x' goes from 4 over 2 to 2"),
        ({"minimum": "x:4", "maximum": "x:2x2"}, "have 1, 2, 2 axes"),
    ],
)
def test_flags_that_are_no_profile(flags: dict[str, str], told: str) -> None:
    with pytest.raises(SegQuantError, match=told):
        make_profile(**flags)


def test_several_profiles() -> None:
    found = make_profiles(minimum=["x:1", "x:5"], maximum=["x:4", "x:9"])
    assert [str(each.inputs[0]) for each in found] == ["x 1 to 4", "x 5 to 9"]
    assert found[1].inputs[0].optimum == (9,)
    assert make_profiles() == ()
    with pytest.raises(SegQuantError, match=r"--minShapes 2 time\(s\), --optShapes 1 time\(s\)"):
        make_profiles(minimum=["x:1", "x:2"], optimum=["x:1"])


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("workspace:4G", [4 * 2**30]),
        ("workspace:1024", [2**30]),
        ("workspace:0.5", [2**19]),
        ("workspace:1M,tacticSharedMem:48K", [2**20, 48 * 2**10]),
        ("workspace:7B", [7]),
    ],
)
def test_pools(text: str, sizes: list[int]) -> None:
    assert [each.size_bytes for each in parse_pools(text)] == sizes


@pytest.mark.parametrize(
    "text", ["", "workspace", "workspace:", "workspace:-1", "dlaSRAM:1", "x:4T"]
)
def test_what_is_no_pool(text: str) -> None:
    with pytest.raises(SegQuantError, match="--memPoolSize has"):
        parse_pools(text)


def test_the_command_says_everything() -> None:
    options = BuildOptions(
        profiles=(make_profile(optimum="x:2x4"), make_profile(minimum="x:3x4", maximum="x:9x4")),
        optimization_level=4, tiling_level=1, max_tactics=3, timing_iterations=2, max_aux_streams=0,
        hardware_compatibility="same_compute_capability", version_compatible=True,
        exclude_lean_runtime=True, refit="identical", strip_weights=True, weight_streaming=True,
        pools=(PoolLimit(pool="workspace", size_bytes=3 * 2**20),),
        plugins=(Path("our plugin.so"),), serialize_plugins=True, timing_cache=Path("t.cache"),
    )  # fmt: skip
    command = trtexec_command(options, Path("a b.onnx"), Path("a.engine"), layers=Path("l.json"))
    assert shlex.split(command) == [
        "trtexec", "--onnx=a b.onnx", "--saveEngine=a.engine", "--stronglyTyped",
        "--profile=0", "--minShapes=x:2x4", "--optShapes=x:2x4", "--maxShapes=x:2x4",
        "--profile=1", "--minShapes=x:3x4", "--optShapes=x:9x4", "--maxShapes=x:9x4",
        "--builderOptimizationLevel=4", "--tilingOptimizationLevel=1", "--maxTactics=3",
        "--avgTiming=2", "--maxAuxStreams=0", "--versionCompatible", "--excludeLeanRuntime",
        "--hardwareCompatibilityLevel=sameComputeCapability", "--stripWeights",
        "--allowWeightStreaming", "--memPoolSize=workspace:3M", "--timingCacheFile=t.cache",
        "--profilingVerbosity=detailed", "--exportLayerInfo=l.json",
        "--dynamicPlugins=our plugin.so", "--setPluginsToSerialize=our plugin.so",
        "--skipInference",
    ]  # fmt: skip
    assert "--refit" in trtexec_command(BuildOptions(refit="any"), Path("a"), Path("b"))


NAMES = st.text(st.characters(exclude_characters="'\n\r\0", codec="utf-8"), min_size=1).filter(
    lambda name: name == name.strip()
)
LENGTHS = st.lists(st.integers(0, 4097), min_size=0, max_size=5).map(tuple)


@given(st.dictionaries(NAMES, LENGTHS, min_size=1, max_size=4))
def test_shapes_round_trip_through_the_command(shapes: dict[str, tuple[int, ...]]) -> None:
    profile = ShapeProfile(
        inputs=tuple(
            ShapeRange(name=name, minimum=(0,) * len(shape), optimum=shape, maximum=shape)
            for name, shape in shapes.items()
        )
    )
    command = trtexec_command(BuildOptions(profiles=(profile,)), Path("m.onnx"), Path("m.engine"))
    flags = dict(part.split("=", 1) for part in shlex.split(command) if "=" in part)
    again = make_profile(
        minimum=flags["--minShapes"], optimum=flags["--optShapes"], maximum=flags["--maxShapes"]
    )
    assert again == profile
