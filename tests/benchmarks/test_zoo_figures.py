"""On a zoo model: our own figures are verify's, and baselines do as much work in integers."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.ablation.artifact import open_artifact
from benchmarks.ablation.baselines import quantised
from benchmarks.ablation.full_size import Size, large_model, latencies
from benchmarks.ablation.quality import Conditions, Examiner
from benchmarks.ablation.subject import Subject
from segquant_trt.models.zoo_loop import UNET
from segquant_trt.pipeline import compile
from segquant_trt.records import GraphFacts, Manifest, Quality, QuantPlan
from segquant_trt.records.codec import read_record
from segquant_trt.report.summary import read_json_record
from segquant_trt.serve import load
from tests.shared import once, run_folder

pytestmark = pytest.mark.full
COMPARABLE = 0.02  # of the multiplications and additions
TOOLS = (
    "ort-minmax-linears",
    *(("modelopt-max-linears",) if find_spec("modelopt") else ()),
    *(("nncf-mixed-linears",) if find_spec("nncf") else ()),
)
QUICK = Conditions(seeds=4, judged=6, steps=3, batch_size=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the zoo's UNet."""

    def compile_it(folder: Path) -> None:
        compile("zoo:digits-unet", out=folder)

    return once(run_folder(tmp_path_factory) / "zoo-unet", compile_it)


def test_figures_of_our_own_bundle_are_those_of_verify(run: Path, tmp_path: Path) -> None:
    written = read_json_record(run / "quality.json", Quality)
    quality = Examiner(Subject.of(run), tmp_path).quality(load(run / "bundle").run)
    same = {"bundle_manifest_sha256": "", "site_errors": (), "temporal": ()}
    assert asdict(replace(quality, **same)) == asdict(replace(written, **same))


def test_remembered_answers_give_the_same_figures(run: Path, tmp_path: Path) -> None:
    subject, bundle = Subject.of(run), load(run / "bundle")
    first = Examiner(subject, tmp_path, QUICK).figures(bundle.run)
    assert list(tmp_path.glob("*.npz"))
    assert Examiner(subject, tmp_path, QUICK).figures(bundle.run) == first
    assert first.latent_sqnr_db_stderr is not None
    assert first.latent_sqnr_db_stderr > 0.0
    unjudged = Examiner(subject, tmp_path, QUICK).figures(bundle.run, judged=False)
    assert unjudged.classifier_accuracy is None
    assert unjudged.latent_sqnr_db == first.latent_sqnr_db


@pytest.mark.parametrize("name", TOOLS)
def test_baselines_do_as_much_in_integers_as_we(run: Path, tmp_path: Path, name: str) -> None:
    subject = Subject.of(run)
    ours = read_json_record(run / "bundle" / "manifest.json", Manifest).macs_integer_share
    opened = open_artifact(quantised(name, subject, tmp_path), subject)
    assert opened.macs_integer_share == pytest.approx(ours, abs=COMPARABLE)
    figures = Examiner(subject, None, QUICK).figures(opened.denoise)
    assert 10.0 < figures.latent_sqnr_db < 70.0


def test_latency_of_a_plan_on_wider_layers(run: Path, tmp_path: Path) -> None:
    small = Size(
        config={"block_out_channels": (64, 128), "norm_num_groups": 32, "sample_size": 16},
        lengths={"height": 16, "width": 16, "text": 6},
    )
    model = large_model("digits-unet", tmp_path, batch=2, sizes={UNET: small})
    plan = read_record(run / "plan.yaml", QuantPlan)
    facts = read_record(run / "facts.yaml", GraphFacts)
    found = latencies(model, {"plain": (plan, facts), "again": (plan, facts)}, budget_s=2.0)
    assert list(found) == ["float", "plain", "again"]
    again = found["again"].over_plain
    assert again.low <= again.median <= again.high
    assert again.median == pytest.approx(1.0, abs=0.3)
    assert found["float"].over_float.median == 1.0
