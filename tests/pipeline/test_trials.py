"""Plans that compete are run first: what is written, and what planning makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

import segquant_trt
from segquant_trt.backends.denoise import float_denoise
from segquant_trt.cli.app import main
from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline import compile_model, run_stage, trials
from segquant_trt.pipeline.bodies import verify_stage
from segquant_trt.pipeline.trials import Calls
from segquant_trt.records import CheckpointLocation, QuantPlan
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work
from segquant_trt.records.trials import Trials
from segquant_trt.verify import VerifyRequest
from tests.pipeline.refusals import refusal


@dataclass
class Notes:
    """Progress that remembers."""

    said: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.said.append(text)

    def update(self, label: str, done: int, total: int | None) -> None:
        pass


def planned(run: Path, **asked) -> tuple[QuantPlan, list[str]]:
    notes = Notes()
    run_stage("plan", CompileOptions(out=run, force=True, **asked), progress=notes)
    return read_record(run / "plan.yaml", QuantPlan), notes.said


def tried(run: Path) -> Trials:
    return read_record(run / "trials.yaml", Trials)


def test_the_chosen_plan_did_on_the_excerpt_what_its_bundle_does(flux_copy: Path) -> None:
    plan = read_record(flux_copy / "plan.yaml", QuantPlan)
    (winner,) = [contender for contender in plan.chosen_from if contender.chosen]
    assert sum(contender.ran for contender in plan.chosen_from) > 1
    assert plan.chosen_from[0].name == "auto"
    inputs = load_file(flux_copy / "excerpt.safetensors")
    folder = read_record(flux_copy / "model.location.yaml", CheckpointLocation).folder
    reference = float_denoise(flux_copy / "model.onnx", Path(folder))
    bundle = segquant_trt.load(flux_copy / "bundle")
    decibels = []
    for row in range(len(inputs["timestep"])):
        one = {k: v if k.endswith("_ids") else v[row : row + 1] for k, v in inputs.items()}
        wanted = reference(one).astype(np.float64)
        noise = wanted - bundle.run(one)
        decibels.append(10 * np.log10((wanted**2).sum() / (noise**2).sum()))
    (found,) = [trial.decibels for trial in tried(flux_copy).trials if trial.name == winner.name]
    assert tried(flux_copy).compared == "recorded samples"
    assert tried(flux_copy).latent_gain_db is None
    # Per-tensor scales: what is in a batch beside a sample moves nothing but float rounding.
    np.testing.assert_allclose(sorted(found), sorted(decibels), atol=0.3)


def test_planning_reads_what_was_tried_and_runs_nothing(
    flux_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("planning alone has run a plan")

    monkeypatch.setattr(trials, "rewrite", never)
    monkeypatch.setattr(trials, "float_denoise", never)
    before = (flux_copy / "plan.yaml").read_bytes()
    _, said = planned(flux_copy)
    assert (flux_copy / "plan.yaml").read_bytes() == before
    assert any(line.startswith("tried before choosing: auto ") for line in said)
    assert any(line.startswith("expected: ") for line in said)


def test_trying_again_gives_the_same_bytes_and_leaves_nothing_behind(flux_copy: Path) -> None:
    before, files = (flux_copy / "trials.yaml").read_bytes(), sorted(flux_copy.rglob("*"))
    run_stage("trial", CompileOptions(out=flux_copy, force=True))
    assert (flux_copy / "trials.yaml").read_bytes() == before
    assert sorted(flux_copy.rglob("*")) == files


def test_a_plan_that_was_not_tried_is_chosen_by_what_is_expected(flux_copy: Path) -> None:
    plan, said = planned(flux_copy, objective="quality")
    assert plan.chosen_from == ()
    assert any("segquant-trt trial" in line for line in said)


def test_trials_of_other_scores_do_not_count(flux_copy: Path) -> None:
    write_record(flux_copy / "trials.yaml", replace(tried(flux_copy), scores_sha256="0" * 64))
    plan, said = planned(flux_copy)
    assert plan.chosen_from == ()
    assert any("segquant-trt trial" in line for line in said)


def test_no_seed_makes_trials_meet_verification(
    flux_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """334,720 lies as far before a million as trials lie behind calibration."""
    asked = []

    def stop(*given: object, **_: object) -> None:
        asked.extend(one for one in given if isinstance(one, VerifyRequest))
        raise SegQuantError("far enough", hint="")

    monkeypatch.setattr("segquant_trt.verify.verify", stop)
    monkeypatch.setattr("segquant_trt.serve.load", lambda *_, **__: SimpleNamespace(run=None))
    options = CompileOptions(out=flux_copy, seed=334_720, force=True)
    work = Work(run=RunFolder(flux_copy), options=options, progress=Notes())
    with pytest.raises(SegQuantError, match="far enough"):
        verify_stage(work)
    (request,) = asked
    assert min(request.seeds) >= 1_000_000 + options.seed


def test_trials_can_be_left_out(flux_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trial", str(flux_copy), "--no-trials"]) == 0
    assert tried(flux_copy).trials == ()
    assert main(["plan", str(flux_copy)]) == 0
    said = capsys.readouterr().err
    assert "tried before choosing" not in said
    assert "expected: " in said
    assert read_record(flux_copy / "plan.yaml", QuantPlan).chosen_from == ()


def test_large_models_are_tried_when_asked_only(
    flux_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segquant_trt.pipeline.planning._TRIED_BYTES", 1)
    notes = Notes()
    run_stage("trial", CompileOptions(out=flux_copy, force=True), progress=notes)
    assert tried(flux_copy).trials == ()
    assert any("--trials" in line for line in notes.said)
    run_stage("trial", CompileOptions(out=flux_copy, trials=True))
    assert len(tried(flux_copy).trials) > 1


def test_a_preset_is_tried_but_neither_compared_nor_bound_by_limits(flux_copy: Path) -> None:
    run_stage("trial", CompileOptions(out=flux_copy, preset="tfmq"))
    reached = {trial.name: trial.sqnr_db_mean for trial in tried(flux_copy).trials}
    plan, _ = planned(flux_copy, preset="tfmq")
    assert (plan.preset, plan.planner, plan.chosen_from) == ("tfmq", "tfmq", ())
    assert plan.prediction is not None
    assert plan.prediction.sqnr_db_mean == reached["tfmq"]


def test_what_was_not_run_is_expected_by_its_sum_and_the_gain(flux_copy: Path) -> None:
    found = tried(flux_copy)
    assert found.step_gain_db is not None
    assert "tfmq" not in {trial.name for trial in found.trials}
    untried = planned(flux_copy, preset="tfmq")[0].prediction
    (flux_copy / "trials.yaml").unlink()
    summed = planned(flux_copy, preset="tfmq")[0].prediction
    assert untried is not None
    assert summed is not None
    assert untried.sqnr_db_mean == pytest.approx(
        (summed.sqnr_db_mean or 0.0) + found.step_gain_db, abs=0.006
    )


@pytest.mark.parametrize(
    ("limit", "flag"),
    [({"objective": "quality"}, "--objective"), ({"max_latency": "1.1x"}, "--max-latency"),
     ({"target_sqnr": 30.0}, "--target-sqnr")],
)  # fmt: skip
def test_limits_that_a_preset_cannot_keep_to_are_refused(
    limit: dict[str, object], flag: str, flux_copy: Path
) -> None:
    options = CompileOptions(out=flux_copy, preset="segquant", **limit)
    for call in (lambda: compile_model(options), lambda: run_stage("plan", options)):
        error = refusal(call)
        assert flag in error.what
        assert "auto" in (error.hint or "")


def test_limits_of_earlier_commands_are_not_held_against_a_preset(
    flux_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(flux_copy)
    assert main(["plan", run, "--max-latency", "1.2x"]) == 0
    assert main(["plan", run, "--preset", "segquant"]) == 0
    assert main(["plan", run, "--max-latency", "1.3x"]) != 0  # the preset is remembered
    assert "segquant" in capsys.readouterr().err


def test_a_target_is_held_against_measurements(flux_copy: Path) -> None:
    best = max(trial.sqnr_db_mean or 0.0 for trial in tried(flux_copy).trials)
    asked = {"target_sqnr": round(best - 6.0, 1)}
    run_stage("trial", CompileOptions(out=flux_copy, **asked))
    plan, _ = planned(flux_copy, **asked)
    (winner,) = [contender for contender in plan.chosen_from if contender.chosen]
    reached = [c for c in plan.chosen_from if (c.measured_db or 0.0) >= asked["target_sqnr"]]
    assert winner in reached
    assert winner.latency_ms == min(c.latency_ms or 0.0 for c in reached)


def test_a_plan_that_cannot_be_run_leaves_nothing_behind(
    flux_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise SegQuantError("no such scheme", hint="none")

    files = sorted(flux_copy.iterdir())
    monkeypatch.setattr(trials, "rewrite", broken)
    options = CompileOptions(out=flux_copy, force=True)
    assert refusal(lambda: run_stage("trial", options)).what == "no such scheme"
    assert sorted(flux_copy.iterdir()) == files


def test_calls_are_compared_step_by_step_and_sample_by_sample() -> None:
    calls = Calls(lambda inputs: np.asarray(inputs["x"], dtype=np.float32))
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(3, 4))
    scratch = np.empty((2, 7))
    for step in (9.0, 9.0, 4.0):
        scratch[:] = rng.normal(size=(2, 7))  # written over between calls, as torch may do
        calls({"x": scratch, "ids": shared, "t": np.array([step])})
    noises = iter([0.1, 0.01, 0.001])
    mean_db, samples = calls.sqnr_db(
        lambda inputs: np.asarray(inputs["x"] * (1.0 + next(noises)), dtype=np.float32), "t"
    )
    np.testing.assert_allclose(samples, [20, 20, 40, 40, 60, 60], atol=1e-3)
    assert mean_db == pytest.approx((30 + 60) / 2, abs=1e-3)
    assert len({id(inputs["ids"]) for inputs, _ in calls.made}) == 1


@pytest.mark.full
@pytest.mark.timeout(600)
def test_final_latents_decide_where_there_is_a_loop(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = CompileOptions(model="zoo:digits-mmdit", out=run, num_samples=6, steps=6)
    for stage in ("export", "calibrate", "analyze", "score", "trial"):
        run_stage(stage, options)
    plan, said = planned(run, num_samples=6, steps=6)
    found = tried(run)
    assert found.compared == "final latents"
    assert (len(found.seeds), found.scheduler_steps) == (6, 6)
    recorded, verified = range(6), range(1_000_000, 1_001_000)
    assert not {*found.seeds} & {*recorded, *verified}
    assert [seed % 10 for seed in found.seeds] == list(recorded)  # the same digits
    assert all(len(trial.decibels) == 6 for trial in found.trials)
    ends = {trial.name: float(np.mean(trial.decibels)) for trial in found.trials}
    assert plan.prediction is not None
    winner = next(told.name for told in plan.chosen_from if told.chosen)
    assert plan.prediction.latent_sqnr_db == pytest.approx(ends[winner], abs=0.006)
    assert any("at the final latent" in line for line in said)
    untried = planned(run, preset="tfmq")[0].prediction
    assert "tfmq" not in ends
    assert untried is not None
    assert found.step_gain_db is not None
    assert found.latent_gain_db is not None
    assert untried.latent_sqnr_db == pytest.approx(
        (untried.sqnr_db_mean or 0.0) - found.step_gain_db + found.latent_gain_db, abs=0.011
    )
