"""Engines and the records beside them as one package; the files stand for engines."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from segquant_trt.cli.app import main
from segquant_trt.errors import SegQuantError
from segquant_trt.package import ServingOptions, package_engines, package_of
from segquant_trt.records.codec import to_plain
from segquant_trt.records.engine import (
    EngineInfo,
    EngineTensor,
    PluginLibrary,
    ShapeProfile,
    ShapeRange,
)
from segquant_trt.records.files import atomic_write_json
from tests.package.test_bundle import block


def profile(samples: tuple[int, int, int], tokens: tuple[int, int, int]) -> ShapeProfile:
    shapes = [((n, t, 64), (n,), (t, 3)) for n, t in zip(samples, tokens, strict=True)]
    names = ("hidden_states", "timestep", "img_ids")
    return ShapeProfile(
        inputs=tuple(
            ShapeRange(name=name, minimum=low, optimum=usual, maximum=high)
            for name, low, usual, high in zip(names, *shapes, strict=True)
        )
    )


INFO = EngineInfo(
    tensorrt="10.13.2.6",
    gpu="NVIDIA L4",
    compute_capability="8.9",
    driver="580.1",
    cuda="13.0",
    engine_sha256="",
    engine_bytes=0,
    onnx_sha256="0" * 64,
    weights_sha256=None,
    hardware_compatibility="none",
    version_compatible=False,
    weights_stripped=False,
    weight_streaming=False,
    refit="none",
    profiles=(profile((1, 2, 2), (256, 1024, 4096)),),
    tensors=(
        EngineTensor(name="hidden_states", mode="input", dtype="bfloat16", shape=(-1, -1, 64)),
        EngineTensor(name="timestep", mode="input", dtype="float32", shape=(-1,)),
        EngineTensor(name="img_ids", mode="input", dtype="float32", shape=(-1, 3)),
        EngineTensor(name="out", mode="output", dtype="bfloat16", shape=(-1, -1, 64)),
    ),
    plugins=(),
    device_memory_bytes=None,
    command="segquant-trt build",
)


def write(folder: Path, name: str, info: EngineInfo = INFO, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.engine"
    path.write_bytes(name.encode())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sizes = {"engine_sha256": digest, "engine_bytes": len(name)}
    record = dataclasses.replace(info, **{**sizes, **changes})
    atomic_write_json(Path(f"{path}.json"), to_plain(record))
    return path


def without_ids(info: EngineInfo) -> dict[str, Any]:
    """The same engine with nothing that samples share."""
    first = info.profiles[0]
    return {
        "tensors": tuple(tensor for tensor in info.tensors if tensor.name != "img_ids"),
        "profiles": (ShapeProfile(inputs=first.inputs[:2]),),
    }


def test_axes_of_samples_are_found_by_their_lengths(tmp_path: Path) -> None:
    package = package_of([write(tmp_path, "flux")], name=None)
    assert package.name == "flux"
    shapes = {spec.name: spec.shape for spec in (*package.inputs, package.output)}
    assert shapes == {
        "hidden_states": ("batch", "any", 64),
        "timestep": ("batch",),
        "img_ids": ("any", 3),
        "out": ("batch", "any", 64),
    }
    assert package.timestep == "timestep"
    assert package.profiles[0].optimum == {
        "hidden_states": (2, 1024, 64), "timestep": (2,), "img_ids": (1024, 3),
    }  # fmt: skip
    assert (package.tensorrt_version, package.engines[0].gpu) == ("10.13.2.6", "NVIDIA L4")


def test_inputs_of_fixed_shape(tmp_path: Path) -> None:
    tensors = tuple(
        dataclasses.replace(tensor, shape=tuple(2 if n < 0 else n for n in tensor.shape))
        for tensor in INFO.tensors
    )
    path = write(tmp_path, "fixed", tensors=tensors, profiles=())
    package = package_of([path], name="model")
    assert package.inputs[0].shape == (2, 2, 64)
    said = package_engines(package, tmp_path / "out", ServingOptions())
    assert said["max_batch_size"] == 0


def test_engines_of_several_gpus(tmp_path: Path) -> None:
    """One of a GPU's own goes before one for all of them."""
    paths = [
        write(tmp_path, "broad", hardware_compatibility="ampere_plus", compute_capability="8.0"),
        write(tmp_path, "hopper", compute_capability="9.0", gpu="NVIDIA H100"),
        write(tmp_path, "ada", hardware_compatibility="same_compute_capability"),
    ]
    package = package_of(paths, name="model")
    broad, hopper, ada = package.engines
    assert hopper.compute_capabilities == ("9.0",)
    assert ada.compute_capabilities == ("8.9",)
    assert "8.6" in broad.compute_capabilities
    assert not {"8.9", "9.0"} & set(broad.compute_capabilities)
    assert [engine.gpu for engine in package.engines] == [None, "NVIDIA H100", None]
    package_engines(package, tmp_path / "out", ServingOptions())
    text = (tmp_path / "out" / "README.md").read_text()
    assert "one model of GPU: hopper.engine on NVIDIA H100" in text
    config = (tmp_path / "out" / "model" / "config.pbtxt").read_text()
    files = {tuple(entry.split())[1::2] for entry in block(config, "cc_model_filenames")}
    assert {('"8.6"', '"sm80.plan"'), ('"9.0"', '"sm90.plan"'), ('"8.9"', '"sm89.plan"')} <= files


def test_two_engines_for_all_gpus(tmp_path: Path) -> None:
    paths = [write(tmp_path, name, hardware_compatibility="ampere_plus") for name in ("a", "b")]
    package = package_of(paths, name="model")
    with pytest.raises(SegQuantError, match=r"a\.engine and .*b\.engine are both for"):
        package_engines(package, tmp_path / "out", ServingOptions())


def test_plugins_go_with_them(tmp_path: Path) -> None:
    library = tmp_path / "libours.so"
    library.write_bytes(b"code")
    digest = hashlib.sha256(b"code").hexdigest()
    path = write(tmp_path, "m", plugins=(PluginLibrary(name="libours.so", sha256=digest),))
    with pytest.raises(SegQuantError, match=r"needs the plugin library libours\.so"):
        package_of([path], name=None)
    package_engines(package_of([path], name=None, plugins=[library]), tmp_path / "out", OPTIONS)
    assert (tmp_path / "out" / "m" / "plugins" / "libours.so").read_bytes() == b"code"
    library.write_bytes(b"other code")
    with pytest.raises(SegQuantError, match="not the library that"):
        package_of([path], name=None, plugins=[library])


OPTIONS = ServingOptions()


def refused(*paths: Path, **options: Any) -> str:
    with pytest.raises(SegQuantError) as error:
        package_of(paths, name=None, **options)
    assert error.value.hint
    return error.value.what


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_stripped": True, "refit": "identical"}, "is without weights"),
        ({"version_compatible": True}, "carries code that the server executes"),
        ({"engine_bytes": 1000}, "is cut off: 4 bytes of 1000"),
        ({"tensors": INFO.tensors[:3]}, "has 0 outputs; a denoiser has one"),
        ({"tensors": (*INFO.tensors, *INFO.tensors[3:])}, "has 2 outputs"),
    ],
)
def test_engines_that_no_server_takes(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused(write(tmp_path, "unet", **changes))


def test_an_engine_that_was_altered(tmp_path: Path) -> None:
    path = write(tmp_path, "unet")
    path.write_bytes(b"XXXX")
    with pytest.raises(SegQuantError, match="was altered"):
        package_engines(package_of([path], name=None), tmp_path / "out", OPTIONS)


def test_an_engine_without_a_record(tmp_path: Path) -> None:
    path = write(tmp_path, "unet")
    Path(f"{path}.json").write_text("{")
    assert "cannot be read" in refused(path)
    Path(f"{path}.json").unlink()
    assert "has no record beside it" in refused(path)
    assert "there is no engine" in refused(tmp_path / "nothing.engine")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (without_ids(INFO), "tensors"),
        ({"profiles": (profile((1, 2, 4), (256, 1024, 4096)),)}, "profiles"),
        ({"tensorrt": "10.14.0"}, "TensorRT"),
    ],
)
def test_engines_that_are_not_of_one_model(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    one = write(tmp_path, "one")
    two = write(tmp_path, "two", compute_capability="9.0", **changes)
    assert f"{one} and {two} differ in their {what}" in refused(one, two)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path, "one", **without_ids(INFO))
    two = write(tmp_path, "two", compute_capability="9.0", **without_ids(INFO))
    out = tmp_path / "out"
    arguments = ["package", "triton", str(one), str(two), "-o", str(out), "--name", "sd"]
    assert main([*arguments, "--no-cuda-graphs", "--json"]) == 0
    text = (out / "sd" / "config.pbtxt").read_text()
    assert "\nmax_batch_size: 2\n" in text
    assert not block(text, "optimization")
    assert main([*arguments, "--force", "--threads", "2"]) == 1
    assert "--threads has no meaning for engines" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path), "--force"]) == 1
    assert "one bundle, or engines" in capsys.readouterr().err
    trusted = write(tmp_path, "three", **without_ids(INFO), version_compatible=True)
    assert main(["package", "triton", str(trusted), "-o", str(tmp_path / "four")]) == 1
    assert "carries code" in capsys.readouterr().err
    assert main(["package", "triton", str(trusted), "-o", str(tmp_path / "four"), "--trust"]) == 0
    assert "version-compatible=true" in (tmp_path / "four" / "README.md").read_text()


def test_inputs_in_another_order(tmp_path: Path) -> None:
    """The timestep tells how many samples there are, wherever it stands."""
    path = write(tmp_path, "flux", tensors=(INFO.tensors[2], *INFO.tensors[:2], INFO.tensors[3]))
    package = package_of([path], name=None)
    assert [spec.shape[0] for spec in package.inputs] == ["any", "batch", "batch"]


@pytest.mark.parametrize("names", [("a/libours.so", "b/libours.so"), ("a/x;y.so",)])
def test_plugins_that_cannot_be_told_apart(tmp_path: Path, names: tuple[str, ...]) -> None:
    libraries = [tmp_path / name for name in names]
    for library in libraries:
        library.parent.mkdir()
        library.write_bytes(b"code")
    package = package_of([write(tmp_path, "m")], name=None, plugins=libraries)
    with pytest.raises(SegQuantError, match="cannot be told apart by their names"):
        package_engines(package, tmp_path / "out", OPTIONS)
