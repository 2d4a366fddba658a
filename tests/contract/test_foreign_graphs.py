"""Graphs that others made: the old exporter's, weights in Constant nodes, and quantised ones."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, version_converter
from torch import nn

from segquant_trt.backends import CPU_BACKENDS
from segquant_trt.backends.base import Backend
from segquant_trt.records import (
    GraphFacts,
    LinearSite,
    QuantPlan,
    SegmentPlan,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
)
from segquant_trt.rewrite import rewrite
from tests.plan.made_up import option, plan, score, scores_of
from tests.small_graphs import Array, facts_of, run_float


class Small(nn.Module):
    """A convolution, and two linears; `fixed` is no parameter of any module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 8, 3, padding=1)
        self.first = nn.Linear(8, 20)
        self.second = nn.Linear(20, 9)
        self.fixed = torch.randn(9, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        hidden = nn.functional.silu(self.first(tokens))
        return self.second(hidden) @ self.fixed


def exported(folder: Path) -> Path:
    """By the exporter that traces TorchScript, converted to a newer opset."""
    torch.manual_seed(0)
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Small().eval(), (torch.randn(2, 6, 5, 7),), str(path), dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip
    onnx.save(version_converter.convert_version(onnx.load(path), 21), path)
    return path


def quantised(folder: Path, *kept: str) -> Path:
    """By ONNX Runtime's own quantiser, but for the nodes whose names contain one of `kept`."""
    from onnxruntime import quantization

    path = exported(folder)
    names = [node.name for node in onnx.load(path).graph.node]

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = [{"x": inputs()}]

        def get_next(self):
            return self._left.pop() if self._left else None

    out = folder / "codes.onnx"
    quantization.quantize_static(
        path, out, Reader(), per_channel=True, op_types_to_quantize=["Conv", "MatMul"],
        activation_type=quantization.QuantType.QUInt8,
        nodes_to_exclude=[name for name in names if any(part in name for part in kept)],
    )  # fmt: skip
    return out


def inputs() -> Array:
    return np.random.default_rng(1).standard_normal((2, 6, 5, 7)).astype(np.float32)


def planned(path: Path, target: Target) -> tuple[GraphFacts, QuantPlan]:
    facts = replace(facts_of(path))
    facts = replace(facts, sites=tuple(replace(site, role="body") for site in facts.sites))
    scores = scores_of(
        *(score(s, *([] if s.has_coded_weight else [options(s)]), output_range=(-4.0, 4.0))
          for s in facts.sites)
    )  # fmt: skip
    scores = replace(scores, onnx_sha256=facts.onnx_sha256)
    made = plan(facts, scores, target=target, preset="plain")
    return facts, made


def options(site: LinearSite):
    coded = SegmentPlan(channels=site.in_features, activation=Symmetric(scale=0.04))
    return option(Treatment(segments=(coded,), weight=WeightPlan()), 1e-4)


def signal_to_noise(found: Array, wanted: Array) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


@pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)
def test_weights_in_constant_nodes_are_coded_too(tmp_path: Path, backend: Backend) -> None:
    path = exported(tmp_path)
    model = onnx.load(path)
    moved = {"Conv", "MatMul"}
    names = {i for node in model.graph.node if node.op_type in moved for i in node.input[1:]}
    constants = [t for t in model.graph.initializer if t.name in names]
    assert len(constants) >= 4
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in constants]
    for tensor in constants:
        model.graph.initializer.remove(tensor)
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    onnx.save(model, path)
    facts, made = planned(path, backend.target)
    assert len(facts.sites) == 4
    assert all(site.treatment.is_integer for site in made.sites)
    out = tmp_path / "quantized.onnx"
    rewrite(path, tmp_path, facts, made, out)
    feeds = {"x": inputs()}
    found = backend.integer_sites(out, [s.name for s in facts.sites], example=feeds)
    assert all(proof.integer for proof in found.values())
    y = backend.open(out, threads=1).run(feeds)["y"]
    assert signal_to_noise(y, run_float(path, feeds)["y"]) > 18.0


@pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)
def test_sites_that_are_quantised_already_stay_as_they_are(
    tmp_path: Path, backend: Backend
) -> None:
    path = quantised(tmp_path, "first")
    facts, made = planned(path, backend.target)
    coded = {site.name for site in facts.sites if site.has_coded_weight}
    assert 0 < len(coded) < len(facts.sites)
    for entry in made.sites:
        assert entry.treatment.is_float == (entry.site in coded)
        assert ("quantised already" in entry.why) == (entry.site in coded)
    out = tmp_path / "quantized.onnx"
    rewrite(path, tmp_path, facts, made, out)
    feeds = {"x": inputs()}
    wanted = run_float(path, feeds)["y"]
    assert signal_to_noise(backend.open(out, threads=1).run(feeds)["y"], wanted) > 18.0


def test_nothing_is_left_to_do_where_all_is_quantised(tmp_path: Path) -> None:
    from segquant_trt.errors import SegQuantError

    with pytest.raises(SegQuantError, match="nothing to quantise"):
        planned(quantised(tmp_path), "onnxruntime")
