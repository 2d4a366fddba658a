"""Whole denoisers: a target computes what its own Q/DQ graph means, taken at its word.

Two INT8 executions of a deep network agree only up to quantisation noise: one code flipped by the
order of two float roundings changes what later layers quantise. So figures are compared, not
numbers; saturating sums cost a UNet 18 dB here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from segquant_trt.backends import CPU_BACKENDS, Backend, backend_for
from segquant_trt.backends.onnxruntime import float_session, literal_session
from segquant_trt.backends.tensorrt.rtx import available
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models import family_for
from segquant_trt.records import (
    ActivationScheme,
    AxisRange,
    CheckpointLocation,
    GraphFacts,
    LinearSite,
    ModelSpec,
)
from segquant_trt.records.codec import read_record
from segquant_trt.rewrite import rewrite
from segquant_trt.rewrite.half import largest_values
from segquant_trt.schemes import SCHEMES, ValueHistogram
from tests.shared import LazyFolders
from tests.small_graphs import Array, facts_of, plan_of
from tests.tiny_pipelines import TINY_KINDS, TinyKind


def sqnr_db(reference: Array, found: Array) -> float:
    reference = reference.astype(np.float64)
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - found) ** 2)))


def small(axis: AxisRange) -> int:
    return -(-max(axis.minimum, min(axis.typical, 16)) // axis.multiple) * axis.multiple


def observed(run: Path, folder: Path, facts: GraphFacts, feeds: dict[str, Array]) -> dict:
    graph = load_graph(run / "model.onnx")
    names = dict.fromkeys(t for site in facts.sites for t in (site.activation, site.output))
    present = {output.name for output in graph.graph.output}
    graph.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in present)
    return float_session(graph, folder, threads=1).run(feeds)


def fitted(kind: str, values: Array) -> ActivationScheme:
    fit = next(scheme.fit for scheme in SCHEMES if scheme.kind == kind)
    low, high = float(values.min()), float(values.max())
    none = np.zeros(2048, dtype=np.int64)
    return fit(ValueHistogram(low=low, high=high, radius=1.0, counts=none), "amax")


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["symmetric", "shifted"])
@pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_site_quantised(
    exported_tiny: LazyFolders, tmp_path: Path, kind: TinyKind, backend: Backend, scheme: str
) -> None:
    run = exported_tiny[kind]
    spec = read_record(run / "model.yaml", ModelSpec)
    folder = Path(read_record(run / "model.location.yaml", CheckpointLocation).folder)
    lengths = {axis.name: small(axis) for axis in spec.axes}
    feeds = family_for(spec.class_name).example_inputs(spec.config, lengths, seed=1)
    facts = facts_of(run / "model.onnx")
    seen = observed(run, folder, facts, feeds)
    inputs = {site.name: seen[site.activation] for site in facts.sites}
    spans = {
        site.name: (float(seen[site.output].min()), float(seen[site.output].max()))
        for site in facts.sites
    }
    plan = plan_of(
        facts, backend.target, lambda site: fitted(scheme, inputs[site]), output_ranges=spans
    )
    quantized = tmp_path / "quantized.onnx"
    rewrite(run / "model.onnx", folder, facts, plan, quantized)
    proofs = backend.integer_sites(quantized, list(inputs), example=feeds)
    assert {site: proof.kernel for site, proof in proofs.items() if not proof.integer} == {}
    output = spec.output.name
    meant = literal_session(quantized, threads=1).run(feeds)[output]
    found = backend.open(quantized, threads=1).run(feeds)[output]
    assert sqnr_db(seen[output], found) > sqnr_db(seen[output], meant) - 3.0
    assert sqnr_db(seen[output], meant) > 12.0


@pytest.mark.full
@pytest.mark.skipif(available() is None, reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize("scheme", ["shifted", "dual_full"])
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_site_in_eight_bits_on_a_gpu(
    exported_tiny: LazyFolders, tmp_path: Path, kind: TinyKind, scheme: str
) -> None:
    """The builder makes 8-bit products of all sites, and float16 loses nothing to speak of."""
    run = exported_tiny[kind]
    spec = read_record(run / "model.yaml", ModelSpec)
    folder = Path(read_record(run / "model.location.yaml", CheckpointLocation).folder)
    lengths = {axis.name: small(axis) for axis in spec.axes}
    feeds = family_for(spec.class_name).example_inputs(spec.config, lengths, seed=1)
    facts = facts_of(run / "model.onnx")
    seen = observed(run, folder, facts, feeds)
    largest = largest_values(load_graph(run / "model.onnx"), folder, [feeds], threads=1)
    figures = {}
    for target in ("openvino", "tensorrt-rtx"):  # both leave outputs of convolutions in float
        plan = plan_of(facts, target, lambda site: fitted(scheme, seen[of(facts, site).activation]))
        quantized = tmp_path / f"{target}.onnx"
        rewrite(run / "model.onnx", folder, facts, plan, quantized, largest=largest)
        found = literal_session(quantized, threads=1).run(feeds)[spec.output.name]
        figures[target] = sqnr_db(seen[spec.output.name], found)
    assert figures["tensorrt-rtx"] > figures["openvino"] - 1.0
    backend = backend_for("tensorrt-rtx")
    names = [site.name for site in facts.sites]
    proofs = backend.integer_sites(quantized, names, example=feeds)
    assert {site: proof.kernel for site, proof in proofs.items() if not proof.integer} == {}


def of(facts: GraphFacts, name: str) -> LinearSite:
    return next(site for site in facts.sites if site.name == name)
