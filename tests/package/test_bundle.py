"""Repositories of bundles: what is in them, and when they are not written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.package import ServingOptions, package_bundle
from segquant_trt.package import bundle as module
from segquant_trt.package.options import name_of
from segquant_trt.records import Manifest, TensorSpec
from segquant_trt.serve.integrity import checked_manifest
from tests.package.bundles import BUNDLES
from tests.shared import LazyFolders

FIXED = {"README.md", "client.py", "example.npz", "packaged.json"}


@pytest.fixture
def plain(bundles: LazyFolders) -> tuple[Path, Manifest]:
    bundle = bundles["plain"] / "bundle"
    return bundle, checked_manifest(bundle)


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def block(text: str, head: str) -> list[str]:
    """The bodies of the top-level messages `head { ... }`."""
    parts = ("\n" + text).split(f"\n{head} {{\n")[1:]
    return [part.split("\n}")[0] for part in parts]


@pytest.mark.parametrize("kind", tuple(BUNDLES))
def test_what_is_in_a_repository(kind: str, repositories: LazyFolders) -> None:
    folder = repositories[kind]
    assert {path.name for path in folder.iterdir()} == {*FIXED, kind}
    said = json.loads((folder / "packaged.json").read_text())
    assert (said["model"], said["backend"]) == (kind, "python")
    graphs = {path.name for path in (folder / kind / "1" / "graphs").iterdir()}
    extra = {
        "four_bits": {"widened.bin"},
        "frozen": {"fallback.onnx"},
        "hoisted": {"fallback.onnx", "prompt.onnx"},
        "hoisted_alone": {"prompt.onnx"},
    }.get(kind, set())
    assert graphs == {"model.onnx", "weights.bin", "probe.onnx", "probe.npz"} | extra


@pytest.mark.parametrize("kind", tuple(BUNDLES))
def test_the_configuration(kind: str, repositories: LazyFolders) -> None:
    text = (repositories[kind] / kind / "config.pbtxt").read_text()
    assert f'name: "{kind}"\nbackend: "python"\n' in text
    largest = {"plain": 4, "unbatched": 0}.get(kind, 8)
    assert f"\nmax_batch_size: {largest}\n" in text
    assert bool(block(text, "dynamic_batching")) is (kind != "unbatched")
    assert len(block(text, "model_warmup")) == 1
    assert 'key: "threads"\n  value {\n    string_value: "1"' in text


def test_tensors_of_a_batching_model(repositories: LazyFolders) -> None:
    text = (repositories["shared"] / "shared" / "config.pbtxt").read_text()
    x, ids = block(text, "input")
    for found, name in ((x, "x"), (ids, "ids")):
        assert " ".join(found.split()) == f'name: "{name}" data_type: TYPE_FP32 dims: -1 dims: 160'
    frozen = (repositories["frozen"] / "frozen" / "config.pbtxt").read_text()
    when = " ".join(block(frozen, "input")[1].split())
    assert when == 'name: "when" data_type: TYPE_FP32 dims: 1 reshape { }'
    last = " ".join(block(text, "output")[0].split())
    assert last == 'name: "y" data_type: TYPE_FP32 dims: -1 dims: 160'


def test_four_bit_codes_come_as_int8(repositories: LazyFolders, bundles: LazyFolders) -> None:
    graphs = repositories["four_bits"] / "four_bits" / "1" / "graphs"
    types = {"bundle": set[int](), "graphs": set[int]()}
    for name, folder in (("bundle", bundles["four_bits"] / "bundle"), ("graphs", graphs)):
        model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
        types[name] = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT4 in types["bundle"] - types["graphs"]
    assert onnx.TensorProto.INT8 in types["graphs"]
    assert (graphs / "widened.bin").stat().st_size == 160 * 160


def test_the_example_is_of_typical_sizes(repositories: LazyFolders) -> None:
    with np.load(repositories["frozen"] / "example.npz") as stored:
        assert stored["x"].shape == (2, 5, 24)
        np.testing.assert_array_equal(stored["when"], [981.0, 981.0])
    warm_up = repositories["frozen"] / "frozen" / "warmup"
    assert (warm_up / "x").stat().st_size == 5 * 24 * 4
    assert np.fromfile(warm_up / "when", dtype=np.float32) == [981.0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("plain", ("One graph", "at most 4 samples", "dynamic batching")),
        ("shared", ("shares `ids` between samples",)),
        ("frozen", ("6 timesteps of `default:6`", "fallback.onnx")),
        ("refusing", ("an error that lists the steps",)),
        ("hoisted", ("at every request", "What `text`, `pooled` alone decide", "dynamic batching")),
        ("unbatched", ("does not batch",)),
    ],
)
def test_the_readme_says_what_is_served(
    kind: str, words: tuple[str, ...], repositories: LazyFolders
) -> None:
    text = (repositories[kind] / "README.md").read_text()
    for word in (*words, "tritonserver --model-repository=", "client.py --protocol http"):
        assert word in text


def test_kept_prompts_share_no_batches(bundles: LazyFolders, tmp_path: Path) -> None:
    bundle = bundles["hoisted"] / "bundle"
    options = ServingOptions(name="kept", kept_prompts=5)
    package_bundle(bundle, checked_manifest(bundle), tmp_path / "out", options)
    text = (tmp_path / "out" / "kept" / "config.pbtxt").read_text()
    assert not block(text, "dynamic_batching")
    said = (tmp_path / "out" / "README.md").read_text()
    assert "for the last 5 prompts, by content" in said
    assert "computed on its own" in said


def test_equal_inputs_give_equal_bytes(plain: tuple[Path, Manifest], tmp_path: Path) -> None:
    for name in ("one", "two"):
        package_bundle(*plain, tmp_path / name, ServingOptions())
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert (tmp_path / "one" / "small").is_dir()


@pytest.mark.parametrize(
    ("options", "lines", "absent"),
    [
        ({"max_batch_size": 3}, ["max_batch_size: 3"], []),
        ({"max_batch_size": 1}, ["max_batch_size: 1"], ["dynamic_batching {"]),
        ({"dynamic_batching": False}, ["max_batch_size: 4"], ["dynamic_batching {"]),
        ({"queue_delay_us": 250}, ["  max_queue_delay_microseconds: 250"], []),
        ({"instances": 3}, ["  count: 3"], []),
        ({"threads": 2, "kept_prompts": 5}, ['    string_value: "2"', '    string_value: "5"'], []),
        ({"warm_up": False}, [], ["model_warmup {"]),
    ],
)
def test_options_reach_the_configuration(
    plain: tuple[Path, Manifest],
    tmp_path: Path,
    options: dict[str, Any],
    lines: list[str],
    absent: list[str],
) -> None:
    package_bundle(*plain, tmp_path / "out", ServingOptions(**options))
    found = (tmp_path / "out" / "small" / "config.pbtxt").read_text().splitlines()
    assert set(lines) <= set(found)
    assert not set(absent) & set(found)


@pytest.mark.parametrize(("most", "wanted"), [(3, 3), (16, 16), (64, 16)])
def test_the_largest_batch_is_modest_unless_asked_for(
    plain: tuple[Path, Manifest], tmp_path: Path, most: int, wanted: int
) -> None:
    axes = tuple(
        dataclasses.replace(axis, maximum=most if axis.name == "batch" else axis.maximum)
        for axis in plain[1].axes
    )
    manifest = dataclasses.replace(plain[1], axes=axes)
    said = package_bundle(plain[0], manifest, tmp_path / "out", ServingOptions())
    assert said["max_batch_size"] == wanted
    options = ServingOptions(max_batch_size=most)
    said = package_bundle(plain[0], manifest, tmp_path / "asked", options)
    assert said["max_batch_size"] == most


def test_models_that_take_no_single_sample_are_not_warmed_up(
    plain: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """The warm-up would fail, and the model not load."""
    pair = tuple(
        dataclasses.replace(axis, minimum=2 if axis.name == "batch" else axis.minimum)
        for axis in plain[1].axes
    )
    manifest = dataclasses.replace(plain[1], axes=pair)
    package_bundle(plain[0], manifest, tmp_path / "out", ServingOptions())
    assert not block((tmp_path / "out" / "small" / "config.pbtxt").read_text(), "model_warmup")
    assert not (tmp_path / "out" / "small" / "warmup").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "cannot be named ''"),
        ({"name": "../up"}, "cannot be named '../up'"),
        ({"name": ".hidden"}, "cannot be named '.hidden'"),
        ({"name": "a" * 200}, "cannot be named"),
        ({"max_batch_size": 0}, "max_batch_size is 0; allowed"),
        ({"queue_delay_us": -1}, "queue_delay_us is -1; allowed"),
        ({"instances": 0}, "instances is 0; allowed"),
        ({"threads": -2}, "threads is -2; allowed"),
        ({"kept_prompts": True}, "kept_prompts is True; allowed"),
    ],
)
def test_options_that_nobody_takes(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SegQuantError) as refused:
        ServingOptions(**options)
    assert words in refused.value.what


def refused(*arguments: Any, **keywords: Any) -> str:
    with pytest.raises(SegQuantError) as error:
        package_bundle(*arguments, **keywords)
    assert error.value.hint
    return error.value.what


def test_batches_larger_than_the_bundle(plain: tuple[Path, Manifest], tmp_path: Path) -> None:
    options = ServingOptions(max_batch_size=5)
    assert "5 is more than the 4 samples" in refused(*plain, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_batches_of_a_model_without_samples(bundles: LazyFolders, tmp_path: Path) -> None:
    bundle = bundles["unbatched"] / "bundle"
    options = ServingOptions(max_batch_size=2)
    said = refused(bundle, checked_manifest(bundle), tmp_path / "out", options)
    assert "no axis of samples" in said


def test_bundles_for_another_runtime(plain: tuple[Path, Manifest], tmp_path: Path) -> None:
    manifest = dataclasses.replace(plain[1], target="openvino")
    said = refused(plain[0], manifest, tmp_path / "out", ServingOptions())
    assert "for target 'openvino'" in said


def test_types_that_no_server_has(plain: tuple[Path, Manifest], tmp_path: Path) -> None:
    odd = TensorSpec(name="x", dtype="complex64", shape=("batch", 4))
    manifest = dataclasses.replace(plain[1], inputs=(odd,))
    assert "complex64" in refused(plain[0], manifest, tmp_path / "out", ServingOptions())
    assert list(tmp_path.iterdir()) == []


def test_repositories_are_not_overwritten_unasked(
    plain: tuple[Path, Manifest], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    package_bundle(*plain, out, ServingOptions(name="first"))
    before = content(out)
    assert "holds a repository already" in refused(*plain, out, ServingOptions(name="second"))
    assert content(out) == before
    package_bundle(*plain, out, ServingOptions(name="second"), force=True)
    assert {path.name for path in out.iterdir()} == {*FIXED, "second"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_what_others_made_is_never_overwritten(
    plain: tuple[Path, Manifest], tmp_path: Path, force: bool
) -> None:
    out = tmp_path / "out"
    package_bundle(*plain, out, ServingOptions(name="ours"))
    (out / "theirs").mkdir()
    assert "was not written by this command" in refused(*plain, out, ServingOptions(), force=force)
    shutil.rmtree(out)
    out.mkdir()
    (out / "thesis.txt").write_text("all of it")
    assert "was not written by this command" in refused(*plain, out, ServingOptions(), force=force)
    assert (out / "thesis.txt").read_text() == "all of it"


def test_an_empty_folder_is_filled(plain: tuple[Path, Manifest], tmp_path: Path) -> None:
    package_bundle(*plain, tmp_path, ServingOptions(name="model"))
    assert (tmp_path / "model" / "config.pbtxt").is_file()


def test_paths_that_are_no_folder(plain: tuple[Path, Manifest], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        assert "is not a folder" in refused(*plain, tmp_path / name, ServingOptions(), force=True)


@pytest.mark.parametrize("place", [".", "repository", ".."])
def test_a_repository_in_or_around_its_bundle(
    plain: tuple[Path, Manifest], tmp_path: Path, place: str
) -> None:
    bundle = Path(shutil.copytree(plain[0], tmp_path / "run" / "bundle"))
    before = content(tmp_path)
    said = refused(bundle, plain[1], bundle / place, ServingOptions(), force=True)
    assert "inside one another" in said
    assert content(tmp_path) == before


def test_a_failure_leaves_nothing(
    plain: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    package_bundle(*plain, out, ServingOptions())
    before = content(out)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_probe", full)
    assert "no space left" in refused(*plain, out, ServingOptions(), force=True)
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, signal, sys
from pathlib import Path
from segquant_trt.package import ServingOptions, bundle, package_bundle
from segquant_trt.serve.integrity import checked_manifest

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

bundle._write_probe = die
source = Path(sys.argv[1])
package_bundle(source, checked_manifest(source), Path(sys.argv[2]), ServingOptions(), force=True)
"""


@pytest.mark.parametrize("there", [False, True])
def test_a_killed_run_leaves_the_old_repository_or_none(
    plain: tuple[Path, Manifest], tmp_path: Path, there: bool
) -> None:
    out = tmp_path / "out"
    if there:
        package_bundle(*plain, out, ServingOptions(name="old"))
    before = content(out) if there else {}
    result = subprocess.run([sys.executable, "-c", KILLED, plain[0], out], timeout=120)
    assert result.returncode == -signal.SIGKILL
    assert out.exists() is there
    assert content(out) == before
    package_bundle(*plain, out, ServingOptions(name="new"), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "new" / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("zoo:digits-unet", "digits-unet"),
        ("black-forest-labs/FLUX.1-dev", "FLUX.1-dev"),
        ("models/my model/", "my-model"),
        ("..", "denoiser"),
        ("_x", "x"),
    ],
)
def test_names_from_sources(source: str, name: str) -> None:
    assert name_of(source) == name
    ServingOptions(name=name)
