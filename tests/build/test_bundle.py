"""Bundles: what is in them, that they own it, and that a fall back to float stops the build."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.backends.base import SiteProof
from segquant_trt.backends.onnxruntime import OnnxRuntime, literal_session
from segquant_trt.build import build
from segquant_trt.build.proof import smallest_inputs
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import external_range, load_graph
from segquant_trt.records import (
    CPU_TARGETS,
    Manifest,
    QuantPlan,
    Target,
    WeightPlan,
    left_in_float,
)
from segquant_trt.records.bundle_layout import is_sealed
from segquant_trt.records.codec import from_plain, read_record
from segquant_trt.records.files import sha256_file
from segquant_trt.rewrite import rewrite
from segquant_trt.serve import load
from tests.bundles import WIDTH, make_bundle, prepare, stamp_anew


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_contents_and_manifest(tmp_path: Path, target: Target) -> None:
    bundle, manifest = make_bundle(tmp_path, target)
    files = {path.name for path in bundle.iterdir()}
    assert files == {"manifest.json", "model.onnx", "plan.yaml", "weights.bin"}
    plain = json.loads((bundle / "manifest.json").read_text())
    assert from_plain(plain, Manifest, origin="m") == manifest
    assert is_sealed(plain)
    for file in manifest.files:
        assert sha256_file(bundle / file.name) == file.sha256
        assert (bundle / file.name).stat().st_size == file.size_bytes
    places = [external_range(t) for t in load_graph(bundle / "model.onnx").graph.initializer]
    assert {place.location for place in places if place} == {"weights.bin"}
    assert read_record(bundle / "plan.yaml", QuantPlan).target == target
    assert (manifest.sites_integer, manifest.sites_total) == (2, 2)
    assert manifest.macs_integer_share == 1.0
    assert target in manifest.versions
    assert manifest.provenance["model"] == sha256_file(tmp_path / "model.onnx")
    model, weights = (f for f in manifest.files if f.name != "plan.yaml")
    assert manifest.size_bytes_quantized == model.size_bytes + weights.size_bytes


def test_a_bundle_leaves_out_what_no_runtime_reads(tmp_path: Path) -> None:
    spec, facts, plan = prepare(tmp_path)
    plain = build(tmp_path, spec, facts, plan, out=tmp_path / "plain")
    graph = load_graph(tmp_path / "quantized.onnx")
    for node in graph.graph.node:
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', '{node.name}']" * 20
        node.doc_string = "said on the way"
    (tmp_path / "quantized.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    noted = build(tmp_path, spec, facts, plan, out=tmp_path / "noted")
    assert (tmp_path / "plain/model.onnx").read_bytes() == (
        tmp_path / "noted/model.onnx"
    ).read_bytes()
    assert noted == plain


def test_bundle_needs_nothing_outside_it(tmp_path: Path) -> None:
    bundle, _ = make_bundle(tmp_path / "run")
    moved = Path(shutil.copytree(bundle, tmp_path / "elsewhere"))
    shutil.rmtree(tmp_path / "run")
    inputs = {
        "x": np.ones((1, 4, WIDTH), np.float32),
        "e": np.ones((1, WIDTH), np.float32),
    }
    assert load(moved, threads=1).run(inputs).shape == (1, 4, WIDTH)
    everything = b"".join(path.read_bytes() for path in moved.iterdir())
    assert str(tmp_path).encode() not in everything


def test_same_bytes_twice_and_the_old_bundle_is_replaced(tmp_path: Path) -> None:
    bundle, _ = make_bundle(tmp_path / "a")
    first = {path.name: path.read_bytes() for path in bundle.iterdir()}
    (bundle / "stray").write_text("old")
    again, _ = make_bundle(tmp_path / "a")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first
    other, _ = make_bundle(tmp_path / "b")
    assert {path.name: path.read_bytes() for path in other.iterdir()} == first
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]


def test_fall_back_to_float_stops_the_build_by_name(tmp_path: Path) -> None:
    """The graph for OpenVINO has plain biases: ONNX Runtime makes a float Gemm of the 2-D site."""
    spec, facts, plan = prepare(tmp_path, "openvino")
    plan = stamp_anew(tmp_path, dataclasses.replace(plan, target="onnxruntime"))
    with pytest.raises(SegQuantError) as caught:
        build(tmp_path, spec, facts, plan, out=tmp_path / "bundle")
    assert "1 of 2 planned sites would run in float on 'onnxruntime': 'gate' (Gemm)" in str(
        caught.value
    )
    assert not (tmp_path / "bundle").exists()


def test_many_fallen_sites_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, facts, plan = prepare(tmp_path)
    plan = dataclasses.replace(
        plan, sites=tuple(dataclasses.replace(plan.sites[0], site=f"s{i}") for i in range(8))
    )
    stamp_anew(tmp_path, plan)
    monkeypatch.setattr(
        OnnxRuntime,
        "integer_sites",
        lambda self, path, sites, *, example: {
            site: SiteProof(integer=False, kernel="Conv") for site in sites
        },
    )
    with pytest.raises(SegQuantError, match=r"8 of 8 planned .*'s4' \(Conv\) and 3 more"):
        build(tmp_path, spec, facts, plan, out=tmp_path / "bundle")


def test_sites_kept_in_float_count_in_the_total(tmp_path: Path) -> None:
    spec, facts, plan = prepare(tmp_path)
    kept = dataclasses.replace(plan.sites[1], treatment=left_in_float(1))
    plan = dataclasses.replace(plan, sites=(plan.sites[0], kept))
    rewrite(tmp_path / "model.onnx", tmp_path, facts, plan, tmp_path / "quantized.onnx")
    manifest = build(tmp_path, spec, facts, plan, out=tmp_path / "bundle")
    assert (manifest.sites_integer, manifest.sites_total) == (1, 2)
    assert manifest.macs_integer_share == pytest.approx(0.5)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_four_bits_are_counted_packed_and_still_in_integers(tmp_path: Path, target: Target) -> None:
    """The file holds two codes per byte; the runtime gets one, once the bundle was checked."""
    eight, _ = make_bundle(tmp_path / "eight", target)
    spec, facts, plan = prepare(tmp_path, target)
    sites = tuple(
        dataclasses.replace(
            site, treatment=dataclasses.replace(site.treatment, weight=WeightPlan(bits=4))
        )
        for site in plan.sites
    )
    plan = dataclasses.replace(plan, sites=sites)
    rewrite(tmp_path / "model.onnx", tmp_path, facts, plan, tmp_path / "quantized.onnx")
    manifest = build(tmp_path, spec, facts, plan, out=tmp_path / "bundle")
    assert manifest.sites_integer == 2
    sizes = [(folder / "weights.bin").stat().st_size for folder in (eight, tmp_path / "bundle")]
    assert sizes[0] - sizes[1] == 2 * WIDTH * WIDTH // 2
    inputs = {"x": np.ones((1, 4, WIDTH), np.float32), "e": np.ones((1, WIDTH), np.float32)}
    found = load(tmp_path / "bundle", threads=1).run(inputs)
    literal = literal_session(tmp_path / "bundle" / "model.onnx", threads=1).run(inputs)["y"]
    assert np.abs(found - literal).max() <= 2e-6 * np.abs(literal).max()


def test_records_of_another_graph_are_refused(tmp_path: Path) -> None:
    spec, facts, plan = prepare(tmp_path)
    other = dataclasses.replace(spec, onnx_sha256="3" * 64)
    with pytest.raises(SegQuantError, match=r"facts\.yaml and model\.yaml are of different graphs"):
        build(tmp_path, other, facts, plan, out=tmp_path / "bundle")


def test_a_failing_build_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, manifest = make_bundle(tmp_path)
    spec, facts, plan = prepare(tmp_path)

    def no_space(source: Path, target: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("segquant_trt.build.bundle.shutil.copyfile", no_space)
    with pytest.raises(SegQuantError, match="no space left"):
        build(tmp_path, spec, facts, plan, out=bundle)
    assert sha256_file(bundle / "model.onnx") == manifest.files[0].sha256
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_a_killed_build_left_is_swept(tmp_path: Path) -> None:
    stale = tmp_path / ".bundle.999999999.abcd.tmp"
    stale.mkdir()
    mine = tmp_path / f".bundle.{os.getpid()}.abcd.tmp"
    mine.mkdir()
    make_bundle(tmp_path)
    assert not stale.exists()
    assert mine.exists()


def test_smallest_inputs_keep_to_the_axes(tmp_path: Path) -> None:
    spec, _, _ = prepare(tmp_path)
    shapes = {name: array.shape for name, array in smallest_inputs(spec).items()}
    assert shapes == {"x": (1, 4, WIDTH), "e": (1, WIDTH)}
