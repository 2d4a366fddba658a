"""Other people's four-bit weights: which sites are coded, how, and what their answers are worth."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.ablation.artifact import Artifact, open_artifact
from benchmarks.ablation.baselines import BASELINES, codes_as_it_runs, place, quantised
from benchmarks.ablation.coded import coded_share
from benchmarks.ablation.folded import folded_model
from benchmarks.ablation.four_bits import weights_with_nncf, weights_with_onnxruntime
from benchmarks.ablation.methods import MATRIX, METHODS, Theirs
from benchmarks.ablation.subject import Subject
from segquant_trt.backends.denoise import float_denoise
from segquant_trt.records.recordings import Array

INT4 = [name for name in BASELINES if "-int4-" in name]


def decoded(node: onnx.NodeProto, stored: dict[str, Array]) -> Array:
    """The weight [K, N] that a MatMulNBits without zero points multiplies by, by its definition."""
    attributes = {each.name: each.i for each in node.attribute}
    packed, scales = (stored[name] for name in node.input[1:3])
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
    steps = scales.reshape(packed.shape[0], packed.shape[1], 1)
    rows = ((codes.astype(np.float32) - 8) * steps).reshape(attributes["N"], -1)
    return rows[:, : attributes["K"]].T


def test_nearest_codes_in_blocks_of_the_bodys_linears_and_of_nothing_else(
    compiled_flux: Path, tmp_path: Path
) -> None:
    subject, block = Subject.of(compiled_flux), 32
    out = tmp_path / "rtn.onnx"
    weights_with_onnxruntime(subject, out, "rtn", block, int8_activations=False)
    exact = onnx.load(folded_model(subject, tmp_path / "folded")).graph
    weight_of = {
        node.output[0]: (node.name, node.input[1]) for node in exact.node if node.input[1:]
    }
    before = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in exact.initializer}
    coded = onnx.load(out).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in coded.initializer}
    found = []
    for node in coded.node:
        if node.op_type != "MatMulNBits":
            continue
        name, weight = weight_of[node.output[0]]
        found.append(name)
        attributes = {each.name: each.i for each in node.attribute}
        assert (attributes["block_size"], attributes["accuracy_level"]) == (block, 1)
        assert len(node.input) == 3
        for start in range(0, attributes["K"], block):
            part = before[weight][start : start + block]
            got = decoded(node, stored)[start : start + block]
            # The farthest code is -8 on one side and 7 on the other.
            step = np.abs(part).max(axis=0) / 8
            assert np.all(np.abs(got - part) <= 1.001 * step)
    assert sorted(found) == sorted(
        site.name for site in subject.facts.sites if site.name not in subject.kept
    )


def check_coded_share_and_answers(artifact: Artifact, subject: Subject) -> None:
    body = {site.name: site.name not in subject.kept for site in subject.facts.sites}
    assert coded_share(artifact, subject) == pytest.approx(subject.share(body))
    inputs = subject.guidance_call()
    exact = float_denoise(subject.run / "model.onnx", subject.weights)(inputs)
    opened = open_artifact(artifact, subject)
    assert opened.macs_integer_share == 0.0
    error = np.square(opened.denoise(inputs) - exact).sum() / np.square(exact).sum()
    assert 1e-6 < error < 1e-2


def test_onnxruntimes_coded_share_is_the_bodys_and_answers_are_near(
    compiled_flux: Path, tmp_path: Path
) -> None:
    subject = Subject.of(compiled_flux)
    check_coded_share_and_answers(quantised("ort-int4-hqq", subject, tmp_path), subject)


def test_nncfs_coded_share_is_the_bodys_and_answers_are_near(
    compiled_flux: Path, tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    subject, path = Subject.of(compiled_flux), tmp_path / "compressed.xml"
    weights_with_nncf(subject, path, (), 16)  # it refuses blocks that do not divide the inputs
    check_coded_share_and_answers(Artifact(path=path, runtime="openvino"), subject)


def test_the_share_of_our_own_bundle_is_that_of_its_codes(
    compiled_flux: Path, tmp_path: Path
) -> None:
    subject = Subject.of(compiled_flux)
    bundle = shutil.copytree(compiled_flux / "bundle", tmp_path / "bundle")
    ours = Artifact(path=bundle / "model.onnx", runtime="onnxruntime")
    assert coded_share(ours, subject) > 0.9


def test_activations_are_coded_where_it_is_said(compiled_flux: Path, tmp_path: Path) -> None:
    subject = Subject.of(compiled_flux)
    inputs = subject.guidance_call()
    answers = []
    for coded in (False, True):
        path = tmp_path / f"{coded}.onnx"
        weights_with_onnxruntime(subject, path, "rtn", 32, int8_activations=coded)
        opened = open_artifact(Artifact(path=path, runtime="onnxruntime"), subject)
        answers.append(opened.denoise(inputs))
    error = np.square(answers[1] - answers[0]).sum() / np.square(answers[0]).sum()
    assert 1e-8 < error < 1e-3


def test_every_one_has_one_format_and_each_tool_is_in_the_tables() -> None:
    formats = {
        method.how.baseline: method.formats for method in METHODS if isinstance(method.how, Theirs)
    }
    for name in INT4:
        wanted = "W4A8" if name.endswith(("-dynamic", "-static")) else "W4A16"
        assert formats[name] == (wanted,)
        assert codes_as_it_runs(name) == name.endswith("-dynamic")
        runtime_codes = place(name, Path()).dynamic_block
        assert runtime_codes == (32 if name.startswith("nncf") and codes_as_it_runs(name) else 0)
    assert formats["ort-minmax-linears"] == ("W8A8",)
    for tool in ("ort", "modelopt", "nncf"):
        assert any(name.startswith(f"{tool}-int4-") for name in MATRIX)
