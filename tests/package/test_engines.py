"""Repositories of TensorRT engines, from files that stand for engines."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.package import ServingOptions, package_engines
from segquant_trt.package.engine_readme import server_flags
from tests.package.engines import flux_package, unet_package
from tests.package.test_bundle import block, content


def words(text: str) -> str:
    return " ".join(text.split())


def test_what_is_in_the_repository(tmp_path: Path) -> None:
    package = unet_package(tmp_path / "built", plugin=True)
    said = package_engines(package, tmp_path / "out", ServingOptions())
    names = set(content(tmp_path / "out"))
    assert names == {
        "README.md", "client.py", "example.npz", "packaged.json", "unet/config.pbtxt",
        "unet/1/sm80.plan", "unet/1/sm89.plan", "unet/plugins/libsegquant.so",
    }  # fmt: skip
    assert (tmp_path / "out" / "unet" / "1" / "sm89.plan").read_bytes() == b"engine for 8.9, 12.0"
    assert said["max_batch_size"] == 8
    assert set(said["engines"]) == {"8.0", "8.9", "12.0"}
    with np.load(tmp_path / "out" / "example.npz") as stored:
        assert stored["sample"].shape == (2, 4, 64, 64)
        assert stored["sample"].dtype == np.float16
        np.testing.assert_array_equal(stored["timestep"], [1.0, 1.0])


def test_the_configuration(tmp_path: Path) -> None:
    package = unet_package(tmp_path / "built")
    package_engines(package, tmp_path / "out", ServingOptions(queue_delay_us=300, instances=2))
    text = (tmp_path / "out" / "unet" / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text
    assert "\nmax_batch_size: 8\n" in text
    sample, timestep, _ = map(words, block(text, "input"))
    assert sample == 'name: "sample" data_type: TYPE_FP16 dims: 4 dims: -1 dims: -1'
    assert timestep == 'name: "timestep" data_type: TYPE_FP32 dims: 1 reshape { }'
    assert [words(entry) for entry in block(text, "cc_model_filenames")] == [
        'key: "8.0" value: "sm80.plan"',
        'key: "8.9" value: "sm89.plan"',
        'key: "12.0" value: "sm89.plan"',
    ]
    assert "default_model_filename" not in text
    (group,) = map(words, block(text, "instance_group"))
    assert group == 'count: 2 kind: KIND_GPU profile: "0" profile: "1"'
    (batcher,) = map(words, block(text, "dynamic_batching"))
    assert batcher == (
        "preferred_batch_size: 2 preferred_batch_size: 8 max_queue_delay_microseconds: 300"
    )


def test_graphs_and_warm_up_are_at_the_favoured_shapes(tmp_path: Path) -> None:
    package = unet_package(tmp_path / "built")
    package_engines(package, tmp_path / "out", ServingOptions())
    text = (tmp_path / "out" / "unet" / "config.pbtxt").read_text()
    (optimization,) = map(words, block(text, "optimization"))
    specs = optimization.split("graph_spec { ")[1:]
    assert [spec.split(" input")[0] for spec in specs] == [
        "batch_size: 1", "batch_size: 2", "batch_size: 1", "batch_size: 8",
    ]  # fmt: skip
    assert 'key: "sample" value { dim: 4 dim: 64 dim: 64 }' in specs[0]
    assert 'key: "timestep" value { }' in specs[0]
    assert 'key: "sample" value { dim: 4 dim: 96 dim: 96 }' in specs[3]
    first, second = map(words, block(text, "model_warmup"))
    assert first.startswith('name: "profile 0" batch_size: 2 inputs')
    assert second.startswith('name: "profile 1" batch_size: 8 inputs')
    assert 'key: "timestep" value { data_type: TYPE_FP32 dims: 1 random_data: true }' in first


def test_engines_that_share_an_input_are_not_batched(tmp_path: Path) -> None:
    package_engines(flux_package(tmp_path / "built"), tmp_path / "out", ServingOptions())
    text = (tmp_path / "out" / "flux" / "config.pbtxt").read_text()
    assert "\nmax_batch_size: 0\n" in text
    assert not block(text, "dynamic_batching")
    hidden, timestep, ids = map(words, block(text, "input"))
    assert hidden == 'name: "hidden_states" data_type: TYPE_BF16 dims: -1 dims: -1 dims: 64'
    assert timestep == 'name: "timestep" data_type: TYPE_FP32 dims: -1'
    assert ids == 'name: "img_ids" data_type: TYPE_FP32 dims: -1 dims: 3'
    (optimization,) = map(words, block(text, "optimization"))
    assert "batch_size: 0 input" in optimization
    assert 'key: "hidden_states" value { dim: 1 dim: 4096 dim: 64 }' in optimization
    (warm_up,) = map(words, block(text, "model_warmup"))
    assert "batch_size: 0 inputs" in warm_up
    said = (tmp_path / "out" / "README.md").read_text()
    assert "does not batch, because samples share an input" in said
    with np.load(tmp_path / "out" / "example.npz") as stored:
        assert stored["hidden_states"].dtype == np.float32  # the client converts it to bfloat16


def test_what_the_package_leaves_out(tmp_path: Path) -> None:
    package = dataclasses.replace(unet_package(tmp_path / "built"), cuda_graphs=False)
    options = ServingOptions(warm_up=False, dynamic_batching=False)
    package_engines(package, tmp_path / "out", options)
    text = (tmp_path / "out" / "unet" / "config.pbtxt").read_text()
    for head in ("optimization", "model_warmup", "dynamic_batching"):
        assert not block(text, head)
    assert "CUDA graphs" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("plugin", [False, True])
@pytest.mark.parametrize("compatible", [False, True])
def test_the_readme_has_the_flags(tmp_path: Path, plugin: bool, compatible: bool) -> None:
    package = unet_package(tmp_path / "built", plugin=plugin)
    package = dataclasses.replace(package, version_compatible=compatible)
    package_engines(package, tmp_path / "out", ServingOptions())
    said = (tmp_path / "out" / "README.md").read_text()
    wanted = {
        '--backend-config=tensorrt,plugins="/models/unet/plugins/libsegquant.so"': plugin,
        "--backend-config=tensorrt,version-compatible=true": compatible,
        "carry code that the server runs": compatible,
        "exactly TensorRT 10.13.2": not compatible,
        "not run with TensorRT by the authors": True,
    }
    assert {word: word in words(said) for word in wanted} == wanted
    assert len(server_flags(package, root="/models")) == plugin + compatible


def refused(package: Any, out: Path) -> str:
    with pytest.raises(SegQuantError) as error:
        package_engines(package, out, ServingOptions())
    assert error.value.hint
    assert not out.exists()
    return error.value.what


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        ((("89",),), "compute capability '89'; such are"),
        ((("sm_89",),), "compute capability 'sm_89'"),
        ((("8.9", "8.9"),), "both for compute capability 8.9"),
        ((("8.9",), ("8.6", "8.9")), "both for compute capability 8.9"),
        ((), "has no engine for any GPU"),
        (((),), "has no engine for any GPU"),
    ],
)
def test_capabilities(tmp_path: Path, capabilities: tuple[tuple[str, ...], ...], said: str) -> None:
    package = unet_package(tmp_path / "built")
    engine = package.engines[0]
    engines = tuple(
        dataclasses.replace(engine, compute_capabilities=given) for given in capabilities
    )
    assert said in refused(dataclasses.replace(package, engines=engines), tmp_path / "out")


def test_engine_files(tmp_path: Path) -> None:
    package = unet_package(tmp_path / "built", plugin=True)
    package.plugin_libraries[0].rename(tmp_path / "elsewhere")
    assert "libsegquant.so does not exist" in refused(package, tmp_path / "out")
    package = unet_package(tmp_path / "built")
    path = package.engines[1].path
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} was altered" in refused(package, tmp_path / "out")
    path.unlink()
    assert f"{path} cannot be read" in refused(package, tmp_path / "out")
    path.write_bytes(b"")
    empty = dataclasses.replace(package.engines[1], sha256=hashlib.sha256(b"").hexdigest())
    engines = (package.engines[0], empty)
    assert "is empty" in refused(dataclasses.replace(package, engines=engines), tmp_path / "out")


@pytest.mark.parametrize(
    ("bound", "name", "shape", "said"),
    [
        ("optimum", "sample", None, "profile 1 has no shapes for input 'sample'"),
        ("optimum", "sample", (9, 4, 96, 96), "profile 1 has shapes (1, 4, 64, 64), (9, 4"),
        ("minimum", "sample", (2, 4, 64), "profile 1 has shapes (2, 4, 64), "),
        ("maximum", "sample", (8, 5, 128, 128), "profile 1 has shapes"),
        ("minimum", "timestep", (0,), "profile 1 has shapes (0,)"),
        ("maximum", "sample", (7, 4, 128, 128), "profile 1 has shapes"),
        ("maximum", "timestep", (9,), "profile 1 takes 8 samples of 'sample' and 9 of 'timestep'"),
    ],
)
def test_profiles(
    tmp_path: Path, bound: str, name: str, shape: tuple[int, ...] | None, said: str
) -> None:
    package = unet_package(tmp_path / "built")
    second = package.profiles[1]
    shapes = dict(getattr(second, bound))
    shapes.pop(name)
    if shape is not None:
        shapes[name] = shape
    changed = dataclasses.replace(second, **{bound: shapes})
    package = dataclasses.replace(package, profiles=(package.profiles[0], changed))
    assert said in refused(package, tmp_path / "out")


def test_no_profile(tmp_path: Path) -> None:
    package = dataclasses.replace(unet_package(tmp_path / "built"), profiles=())
    assert "has no optimisation profile" in refused(package, tmp_path / "out")


def test_a_name_that_no_server_takes(tmp_path: Path) -> None:
    package = dataclasses.replace(unet_package(tmp_path / "built"), name="a b")
    assert "cannot be named 'a b'" in refused(package, tmp_path / "out")


def test_an_engine_inside_the_repository(tmp_path: Path) -> None:
    package = unet_package(tmp_path / "out")
    with pytest.raises(SegQuantError, match="inside one another"):
        package_engines(package, tmp_path / "out", ServingOptions(), force=True)
