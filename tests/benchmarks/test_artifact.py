"""The integer share of any quantised model is read from what the runtime executes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation.artifact import Artifact, open_artifact
from benchmarks.ablation.subject import Subject
from segquant_trt.records import (
    Manifest,
    QuantPlan,
    SegmentPlan,
    SitePlan,
    Symmetric,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.records.codec import read_record
from segquant_trt.report.summary import read_json_record
from segquant_trt.rewrite import rewrite
from segquant_trt.serve import load


def test_the_share_of_our_own_bundle_is_its_manifests(compiled_flux: Path) -> None:
    subject = Subject.of(compiled_flux)
    bundle = compiled_flux / "bundle"
    manifest = read_json_record(bundle / "manifest.json", Manifest)
    opened = open_artifact(Artifact(path=bundle / "model.onnx", runtime=manifest.target), subject)
    assert 0.0 < opened.macs_integer_share < 1.0
    assert opened.macs_integer_share == pytest.approx(manifest.macs_integer_share)
    inputs = subject.guidance_call()
    assert np.array_equal(opened.denoise(inputs), load(bundle).run(inputs))


def plain(site: SitePlan, channels: int, *, coded: bool) -> SitePlan:
    segment = SegmentPlan(channels=channels, activation=Symmetric(scale=0.05))
    treatment = Treatment(segments=(segment,), weight=WeightPlan())
    return replace(site, treatment=treatment if coded else left_in_float(channels))


@pytest.mark.parametrize("every", [2, 3])
def test_openvinos_executed_work_is_the_plans(
    compiled_flux: Path, tmp_path: Path, every: int
) -> None:
    subject = Subject.of(compiled_flux)
    plan = read_record(compiled_flux / "plan.yaml", QuantPlan)
    channels = {site.name: site.in_features for site in subject.facts.sites}
    chosen = {
        site.site: index % every == 0
        for index, site in enumerate(site for site in plan.sites if site.site not in subject.kept)
    }
    sites = (plain(s, channels[s.site], coded=chosen.get(s.site, False)) for s in plan.sites)
    path = tmp_path / "quantized.onnx"
    rewrite(
        compiled_flux / "model.onnx",
        subject.weights,
        subject.facts,
        replace(plan, target="openvino", sites=tuple(sites)),
        path,
    )
    opened = open_artifact(Artifact(path=path, runtime="openvino"), subject)
    assert opened.macs_integer_share == pytest.approx(subject.share(chosen), rel=1e-6)
