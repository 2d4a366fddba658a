"""Whole denoisers with every treatment somewhere: a target computes what its own graph means.

Groups of sites that read one tensor take turns with the treatments that their target offers; what
makes up an input is cut, divided and folded as real graphs have it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.backends import CPU_BACKENDS, Backend
from segquant_trt.backends.emission import Structure
from segquant_trt.backends.onnxruntime import literal_session
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models import family_for
from segquant_trt.records import (
    CheckpointLocation,
    GraphFacts,
    KeepFloat,
    LinearSite,
    ModelSpec,
    PerStep,
    PerToken,
    RowFactor,
    SegmentPlan,
    SitePlan,
    Smoothing,
    Static,
    Treatment,
    WeightPlan,
)
from segquant_trt.records.codec import read_record
from segquant_trt.records.scores import array_key
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import SCHEMES, ValueHistogram
from tests.contract.test_architectures import observed, small, sqnr_db
from tests.shared import LazyFolders
from tests.small_graphs import Array, facts_of, plan_of
from tests.tiny_pipelines import TINY_KINDS, TinyKind

STEPS = PerStep(edges=(0.0, 400.0), factors=(1.25, 0.75))
Turn = tuple[str, RowFactor, bool, int]  # scheme, factor, whether smoothed, bits of the weight
PLAIN: Turn = ("shifted", Static(), False, 8)
TURNS: tuple[Turn, ...] = (
    ("shifted", Static(), True, 8),
    ("symmetric", PerToken(), False, 8),
    ("dual_full", Static(), False, 8),
    ("shifted", STEPS, False, 8),
    ("dual_scale", PerToken(), True, 8),
    ("symmetric", Static(), True, 4),
)


def channels_last(site: LinearSite, x: Array) -> Array:
    return np.moveaxis(x, 1, -1) if site.op == "Conv" else x


def fitted(kind: str, factor: RowFactor, values: Array, rank: int, step: float) -> SegmentPlan:
    """One segment of these values [.., C], its scales fitted behind its factor."""
    if isinstance(factor, PerToken):
        values = values / np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-30)
    elif isinstance(factor, PerStep):
        values = values / factor.factors[1 if step >= factor.edges[1] else 0]
    fit = next(scheme.fit for scheme in SCHEMES if scheme.kind == kind)
    seen = ValueHistogram.of(values.reshape(-1))
    return SegmentPlan(channels=values.shape[-1], activation=fit(seen, "amax"), factor=factor)


def treatment(
    site: LinearSite, sizes: tuple[int, ...], x: Array, turn: Turn, step: float, arrays: dict
) -> Treatment:
    kind, factor, smooth, bits = turn
    values = channels_last(site, x)
    smoothing = None
    if smooth:
        amax = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
        divisor = np.sqrt(np.maximum(amax, amax.max() * 1e-2) / amax.max()).astype(np.float32)
        key = array_key("d", divisor)
        arrays[key] = divisor
        smoothing = Smoothing(divisor=key, alpha=0.5, segment_exponent=None)
        values = values / divisor
    parts = [
        fitted(kind, factor, values[..., low:high], x.ndim, step)
        for low, high in pairwise(accumulate(sizes, initial=0))
    ]
    return Treatment(segments=tuple(parts), smoothing=smoothing, weight=WeightPlan(bits=bits))


@dataclass(kw_only=True)
class Chooser:
    """Picks a treatment that the target offers; sites of one tensor take the same turn."""

    backend: Backend
    facts: GraphFacts
    structure: Structure
    timestep: str
    seen: dict[str, Array]
    feeds: dict[str, Array]
    arrays: dict[str, Array] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)

    def choose(self, site: LinearSite, plan: SitePlan) -> SitePlan:
        x, y = self.seen[site.activation], channels_last(site, self.seen[site.output])
        rows = y.reshape(-1, y.shape[-1])
        self.arrays[f"o-{site.name}"] = np.stack([rows.min(axis=0), rows.max(axis=0)])
        span = (float(rows.min()), float(rows.max()))
        turn = self.turns.setdefault(site.activation, TURNS[len(self.turns) % len(TURNS)])
        step = float(np.max(self.feeds[self.timestep]))
        whole = (site.in_features,)
        for own, sizes in ((turn, self.sizes(site)), (turn, whole), (PLAIN, whole)):
            made = replace(
                plan,
                treatment=treatment(site, sizes, x, own, step, self.arrays),
                output_range=span,
                output_channels=f"o-{site.name}",
            )
            if self.offered(site, made, own):
                return made
        raise AssertionError(f"{site.name} cannot be quantised at all")

    def sizes(self, site: LinearSite) -> tuple[int, ...]:
        wanted = (site.name, "input", "concat")
        found = (s.sizes for s in self.facts.segments if (s.site, s.side, s.pattern) == wanted)
        return next(found, (site.in_features,))

    def offered(self, site: LinearSite, plan: SitePlan, turn: Turn) -> bool:
        _, factor, _, _ = turn
        elsewhere = self.structure.samples_elsewhere(site.activation, self.timestep)
        requantised = site.op == "Conv" and self.backend.placement.requantize_conv_output
        if (isinstance(factor, PerStep) and elsewhere) or (
            requantised and not isinstance(factor, Static)
        ):
            return False  # output ranges over a factor were not observed
        return self.backend.placement.lacks(site, plan) is None


@pytest.mark.full
@pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)
@pytest.mark.parametrize("kind", TINY_KINDS)
def test_every_treatment_in_one_denoiser(
    exported_tiny: LazyFolders, tmp_path: Path, kind: TinyKind, backend: Backend
) -> None:
    run = exported_tiny[kind]
    spec = read_record(run / "model.yaml", ModelSpec)
    folder = Path(read_record(run / "model.location.yaml", CheckpointLocation).folder)
    lengths = {axis.name: small(axis) for axis in spec.axes}
    feeds = family_for(spec.class_name).example_inputs(spec.config, lengths, seed=1)
    facts = facts_of(run / "model.onnx")
    seen = observed(run, folder, facts, feeds)
    assert spec.timestep is not None
    chooser = Chooser(
        backend=backend,
        facts=facts,
        structure=Structure(load_graph(run / "model.onnx"), run),
        timestep=spec.timestep,
        seen=seen,
        feeds=feeds,
    )
    plan = plan_of(facts, backend.target, lambda _: KeepFloat())
    chosen = map(chooser.choose, facts.sites, plan.sites)
    plan, arrays = replace(plan, sites=tuple(chosen)), chooser.arrays
    kinds = {site.treatment.segments[0].activation.kind for site in plan.sites}
    assert len(kinds) == 4
    assert any(len(site.treatment.segments) > 1 for site in plan.sites)
    quantized = tmp_path / "quantized.onnx"
    rewrite(
        run / "model.onnx", folder, facts, plan, quantized, arrays=arrays, timestep=spec.timestep
    )
    names = [site.name for site in facts.sites]
    proofs = backend.integer_sites(quantized, names, example=feeds)
    assert {site: proof.kernel for site, proof in proofs.items() if not proof.integer} == {}
    output = spec.output.name
    meant = literal_session(quantized, threads=1).run(feeds)[output]
    found = backend.open(quantized, threads=1).run(feeds)[output]
    assert sqnr_db(seen[output], found) > sqnr_db(seen[output], meant) - 3.0
    assert sqnr_db(seen[output], meant) > 12.0
