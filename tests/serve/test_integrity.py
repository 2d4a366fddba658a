"""What `load` refuses, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records.bundle_layout import sealed
from segquant_trt.records.files import sha256_file
from segquant_trt.serve import load
from tests.bundles import make_bundle
from tests.shared import once, run_folder

FILES = ("manifest.json", "model.onnx", "plan.yaml", "weights.bin")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a bundle; read only."""
    return once(run_folder(tmp_path_factory) / "integrity", make_bundle)


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> None:
    path = bundle / "manifest.json"
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(sealed(plain) if seal else plain))


def refused(bundle: Path, pattern: str) -> None:
    with pytest.raises(SegQuantError, match=pattern):
        load(bundle)


def test_the_undamaged_bundle_loads(bundle: Path) -> None:
    assert load(bundle, threads=1).manifest.target == "onnxruntime"
    assert load(str(bundle), threads=1).manifest.sites_total == 2


@pytest.mark.parametrize("given", [None, 3, ["bundle"], b"bundle"])
def test_what_is_no_path(given: Any) -> None:
    with pytest.raises(SegQuantError, match=r"bundle is .*; allowed: the path of a folder"):
        load(given)


@pytest.mark.parametrize("given", ["2", 1.0, True, 0, -1])
@pytest.mark.parametrize("name", ["threads", "kept_prompts"])
def test_what_is_no_number_of_threads_or_prompts(bundle: Path, name: str, given: Any) -> None:
    with pytest.raises(SegQuantError, match=rf"{name} is {given!r}; allowed: whole numbers"):
        load(bundle, **{name: given})


@pytest.mark.parametrize("name", FILES)
def test_missing_files(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    refused(bundle, rf"{name} does not exist")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_truncated_files(bundle: Path, name: str, part: float) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: int(len(data) * part)])
    refused(bundle, rf"{name}.*truncated or altered")


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_flipped_bit(bundle: Path, name: str, place: float) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[int(len(data) * place)] ^= 1
    (bundle / name).write_bytes(data)
    refused(bundle, rf"{name} was altered")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["axes"][0].update(maximum=4096),
        lambda m: m["config"].update(scale=0.2),
        lambda m: m.update(sites_integer=1),
        lambda m: m["provenance"].pop("manifest"),
    ],
)
def test_an_edited_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(bundle, change, seal=False)
    refused(bundle, r"manifest\.json was altered")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda m: m.update(schema_version=2), r"schema_version 2; this program reads 1"),
        (lambda m: m.pop("schema_version"), r"schema_version None"),
        (lambda m: m.update(target="tensorrt"), r"for target 'tensorrt'; this program runs"),
        (lambda m: m.update(target="openvino"), r"plan\.yaml is for target 'onnxruntime'"),
        (lambda m: m.update(surprise=1), r"not a valid Manifest: .*surprise"),
        (lambda m: m.pop("inputs"), r"not a valid Manifest"),
        (lambda m: m["inputs"].pop(), r"has inputs e, x"),
        (lambda m: m["files"].pop(), r"lists model\.onnx, plan\.yaml; a bundle has"),
    ],
)
def test_manifests_for_others(
    bundle: Path, change: Callable[[dict[str, Any]], object], pattern: str
) -> None:
    edit(bundle, change)
    refused(bundle, pattern)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "sub/weights.bin", ".."])
def test_paths_out_of_the_bundle(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("secret")
    edit(bundle, lambda m: m["files"][2].update(name=name))
    refused(bundle, "a bundle has model.onnx")


@pytest.mark.parametrize("name", FILES)
def test_links_out_of_the_bundle(bundle: Path, name: str) -> None:
    outside = bundle.parent / f"outside-{name}"
    (bundle / name).rename(outside)
    (bundle / name).symlink_to(outside)
    refused(bundle, rf"{name} leads out of the bundle")


def test_a_graph_that_points_elsewhere(bundle: Path) -> None:
    import onnx

    model = onnx.load(str(bundle / "model.onnx"), load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = "manifest.json"
    (bundle / "model.onnx").write_bytes(model.SerializeToString())

    def reseal(manifest: dict[str, Any]) -> None:
        for file in manifest["files"]:
            path = bundle / file["name"]
            file.update(sha256=sha256_file(path), size_bytes=path.stat().st_size)

    edit(bundle, reseal)
    refused(bundle, r"points to 'manifest\.json'; only weights\.bin is allowed")


def test_not_a_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "is not a bundle")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is not a bundle")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"manifest\.json does not exist")


@pytest.mark.parametrize("text", ["[]", "3", "null", "{}", "[" * 100_000, "\xff"])
def test_manifests_that_are_something_else(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    refused(bundle, r"manifest\.json")


def test_a_link_to_the_whole_bundle_is_fine(bundle: Path) -> None:
    link = bundle.parent / "link"
    link.symlink_to(bundle)
    assert load(link, threads=1).manifest.sites_total == 2


@pytest.mark.parametrize("threads", [0, -1])
def test_impossible_thread_counts(bundle: Path, threads: int) -> None:
    with pytest.raises(SegQuantError, match="threads"):
        load(bundle, threads=threads)
