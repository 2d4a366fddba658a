from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from segquant_trt.errors import SegQuantError
from segquant_trt.records import BundleFile, CheckpointLocation
from segquant_trt.records.calibration import ActivationStats, Calibration, write_calibration
from segquant_trt.records.codec import to_plain, write_record
from segquant_trt.records.files import atomic_write_json, sha256_bytes
from segquant_trt.records.images import save_images
from segquant_trt.report.description import Description
from segquant_trt.report.inspect import describe
from tests.report.runs import SHA, digit_images, zoo_run

RUN = zoo_run(12)
LOCATION = CheckpointLocation(folder="weights", pipeline_folder=None, mtime_ns={}, inode={"w": 1})
RECORDS: dict[str, tuple[Any, str]] = {
    "model.yaml": (RUN.spec, "model specification"),
    "model.location.yaml": (LOCATION, "checkpoint location"),
    "facts.yaml": (RUN.facts, "graph facts"),
    "plan.yaml": (RUN.plan, "quantisation plan"),
    "manifest.json": (RUN.manifest, "bundle manifest"),
    "quality.json": (RUN.quality, "quality figures"),
    "benchmark.json": (RUN.benchmark, "benchmark figures"),
}


def write(path: Path, record: Any) -> Path:
    if path.suffix == ".json":
        atomic_write_json(path, to_plain(record))
    else:
        write_record(path, record)
    return path


def properties(description: Description) -> dict[str, Any]:
    found: dict[str, Any] = description.as_dict()["properties"]
    return found


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_recognised_by_content(name: str, tmp_path: Path) -> None:
    record, kind = RECORDS[name]
    path = write(tmp_path / f"renamed{Path(name).suffix}", record)
    description = describe(path)
    assert description.kind == kind
    assert json.loads(json.dumps(description.as_dict(), allow_nan=False))["kind"] == kind
    assert description.text(rows=None).count("\n") > 3


@pytest.mark.parametrize("name", RECORDS)
def test_truncated_records_are_refused(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, RECORDS[name][0])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    with pytest.raises(SegQuantError, match=name):
        describe(path)


@pytest.mark.parametrize("name", RECORDS)
def test_another_schema_version_is_refused(name: str, tmp_path: Path) -> None:
    plain = {**to_plain(RECORDS[name][0]), "schema_version": 99}
    (tmp_path / name).write_text(json.dumps(plain))
    with pytest.raises(SegQuantError, match=f"{name} has schema_version 99"):
        describe(tmp_path / name)


def test_unknown_and_missing_keys_are_named(tmp_path: Path) -> None:
    plain = to_plain(RUN.plan)
    (tmp_path / "plan.json").write_text(json.dumps({**plain, "surprise": 1}))
    with pytest.raises(SegQuantError, match="surprise"):
        describe(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty", b"", "is empty"),
        ("text", b"just some words\n", "none of the known records"),
        ("list.json", b"[1, 2]", "none of the known records"),
        ("broken.json", b'{"a": ', "not valid JSON"),
        ("latin.json", b'{"a": "\xe9\xe9\xe9\xe9"}', "not a text file|not a readable ONNX"),
        ("yaml", b"a: [1, 2\n", "not valid YAML"),
        ("noise", bytes(range(256)) * 8, "not a readable ONNX model"),
        ("cut.safetensors", b"\x40\0\0\0\0\0\0\0" + b'{"x":{"dtype"', "truncated or malformed"),
    ],
)
def test_other_files_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SegQuantError, match=message) as caught:
        describe(tmp_path / name)
    assert name in caught.value.what


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SegQuantError, match="nowhere cannot be read"):
        describe(tmp_path / "nowhere")


def test_plan_shows_schemes_and_shares(tmp_path: Path) -> None:
    tables = describe(write(tmp_path / "plan.yaml", RUN.plan)).as_dict()["tables"]
    assert {row["treatment"]: row["sites"] for row in tables["treatments"]} == {
        "symmetric": 8, "shifted": 2, "float": 2,
    }  # fmt: skip
    assert sum(row["MACs"] for row in tables["sites"]) == pytest.approx(1.0)


def test_calibration(tmp_path: Path) -> None:
    stats = ActivationStats(
        minimum=np.array([[-1.0, -2.0, 0.0]], dtype=np.float32),
        maximum=np.array([[1.0, 5.0, 0.5]], dtype=np.float32),
        histogram=np.zeros((1, 2048), dtype=np.int64),
        exponent=np.zeros(1, dtype=np.int32),
        rows=np.zeros((1, 2, 3), dtype=np.float32),
        elements_per_sample=6,
    )
    record = Calibration(
        onnx_sha256=SHA,
        checkpoint_sha256=SHA,
        origin="synthetic",
        samples=8,
        bin_edges=(0.0,),
        tensors={"act": stats},
        patches={},
    )
    write_calibration(tmp_path / "c", record)
    description = describe(tmp_path / "c")
    assert description.kind == "calibration"
    assert properties(description)["samples"] == 8
    assert description.as_dict()["tables"]["tensors"] == [
        {"tensor": "act", "channels": 3, "min": -2.0, "max": 5.0}
    ]


@pytest.mark.parametrize("cut", [9, 200, -1])
def test_truncated_safetensors(cut: int, tmp_path: Path) -> None:
    save_images(tmp_path / "i.safetensors", digit_images(2))
    assert describe(tmp_path / "i.safetensors").kind == "report images"
    whole = (tmp_path / "i.safetensors").read_bytes()
    (tmp_path / "i.safetensors").write_bytes(whole[:cut])
    with pytest.raises(SegQuantError, match=r"i\.safetensors"):
        describe(tmp_path / "i.safetensors")


def test_recorded_inputs_in_a_folder(tmp_path: Path) -> None:
    for shard in ("0", "1"):
        save_file(
            {"sample": np.zeros((4, 1, 8, 8), np.float16), "timestep": np.zeros(4, np.int64)},
            tmp_path / f"{shard}.safetensors",
        )
    description = describe(tmp_path)
    assert description.kind == "recorded inputs"
    assert properties(description)["shards"] == 2
    assert description.as_dict()["tables"]["types"] == [
        {"type": "F16", "tensors": 1, "bytes": 512}, {"type": "I64", "tensors": 1, "bytes": 32},
    ]  # fmt: skip


def bundle(folder: Path) -> Path:
    content = b"graph" * 100
    (folder / "model.onnx").write_bytes(content)
    file = BundleFile(name="model.onnx", sha256=sha256_bytes(content), size_bytes=len(content))
    write(folder / "manifest.json", replace(RUN.manifest, files=(file,)))
    return folder


def test_intact_bundle(tmp_path: Path) -> None:
    description = describe(bundle(tmp_path))
    assert description.kind == "bundle"
    assert properties(description)["intact"] is True
    assert description.notes == ()


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (lambda path: path.write_bytes(b"GRAPH" * 100), "altered"),
        (lambda path: path.write_bytes(b"graph"), "wrong size"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_damaged_bundle(damage: Callable[[Path], Any], state: str, tmp_path: Path) -> None:
    damage(bundle(tmp_path) / "model.onnx")
    description = describe(tmp_path)
    assert properties(description)["intact"] is False
    assert description.as_dict()["tables"]["files"][0]["state"] == state
    assert "model.onnx is not what the manifest promises" in description.notes


def test_bundle_is_not_followed_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    file = BundleFile(name="../secret", sha256=sha256_bytes(b"x"), size_bytes=1)
    write(tmp_path / "bundle" / "manifest.json", replace(RUN.manifest, files=(file,)))
    files = describe(tmp_path / "bundle").as_dict()["tables"]["files"]
    assert files[0]["state"] == "leads out of the bundle"


def test_bundle_with_another_record_as_manifest(tmp_path: Path) -> None:
    write(tmp_path / "manifest.json", RUN.quality)
    with pytest.raises(SegQuantError, match="not a bundle's manifest"):
        describe(tmp_path)


def test_run_folder(tmp_path: Path) -> None:
    write(tmp_path / "model.yaml", RUN.spec)
    (tmp_path / ".stages").mkdir()
    for name in ("export", "digests"):
        (tmp_path / ".stages" / f"{name}.json").write_text("{}")
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "0").write_bytes(b"12345")
    description = describe(tmp_path)
    assert description.kind == "run folder"
    assert properties(description)["finished stages"] == "export"
    content = {row["name"]: row["size"] for row in description.as_dict()["tables"]["content"]}
    assert content["recordings/"] == 5


def test_other_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(SegQuantError, match="no bundle"):
        describe(tmp_path)
