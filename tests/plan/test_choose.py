"""Choosing by made-up figures: what wins, what a tie is, and what is expected of the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev

import pytest

from segquant_trt.plan import (
    Candidate,
    PlanRequest,
    choose,
    decisions_sha256,
    latent_gain_db,
    step_gain_db,
)
from segquant_trt.records import Prediction, QuantPlan
from segquant_trt.records.trials import Trial, Trials

REQUEST = PlanRequest(target="onnxruntime")


def candidate(name: str, cost_ms: float = 1.0, expected_db: float = 40.0, **told) -> Candidate:
    plan = QuantPlan(
        target="onnxruntime",
        preset=name,
        onnx_sha256=f"graph of {name}",
        facts_sha256="f",
        calibration_sha256="c",
        prediction=Prediction(sqnr_db_mean=expected_db, latency_ms=cost_ms, latency_ms_plain=1.0),
        sites=(),
    )
    return Candidate(name=name, plan=plan, **told)


def trials(
    *done: tuple[Candidate, Sequence[float]],
    step_gain: float | None = None,
    gain: float | None = None,
    latents: bool = True,
    in_steps: dict[str, float] | None = None,
) -> Trials:
    return Trials(
        onnx_sha256="m",
        scores_sha256="s",
        compared="final latents" if latents else "recorded samples",
        seeds=tuple(range(len(done[0][1]))),
        scheduler_steps=20,
        step_gain_db=step_gain,
        latent_gain_db=gain,
        trials=tuple(
            Trial(
                name=c.name,
                decisions_sha256=decisions_sha256(c.plan),
                sqnr_db_mean=(in_steps or {}).get(c.name, 50.0),
                decibels=tuple(decibels),
            )
            for c, decibels in done
        ),
    )


def chosen(plan: QuantPlan) -> str:
    (winner,) = [contender.name for contender in plan.chosen_from if contender.chosen]
    return winner


OWN, RIVAL = candidate("auto"), candidate("segquant")


def test_the_best_wins_and_the_margins_are_paired() -> None:
    own, rival = [40.0, 30.0, 35.0], [41.1, 31.0, 35.9]  # far apart by seed, always 1 dB better
    plan = choose((OWN, RIVAL), trials((OWN, own), (RIVAL, rival)), REQUEST)
    assert chosen(plan) == "segquant"
    assert plan.onnx_sha256 == "graph of segquant"
    assert (plan.preset, plan.planner) == ("auto", "segquant")
    loser = plan.chosen_from[0]
    pairs = [a - b for a, b in zip(own, rival, strict=True)]
    assert loser.margin_db == pytest.approx(mean(pairs), abs=0.005)
    assert loser.margin_stderr_db == pytest.approx(stdev(pairs) / 3**0.5, abs=0.005)
    assert loser.latent_db == 35.0
    assert plan.chosen_from[1].margin_db is None


@pytest.mark.parametrize(("own_ms", "winner"), [(0.9, "auto"), (1.0, "auto"), (1.1, "segquant")])
def test_the_planner_wins_ties_unless_it_is_dearer(own_ms: float, winner: str) -> None:
    own = candidate("auto", cost_ms=own_ms)
    tied = trials((own, [40.0, 40.0, 40.0]), (RIVAL, [41.0, 39.5, 40.0]))
    assert chosen(choose((own, RIVAL), tied, REQUEST)) == winner


def test_one_seed_makes_no_tie() -> None:
    plan = choose((OWN, RIVAL), trials((OWN, [40.0]), (RIVAL, [40.1])), REQUEST)
    assert chosen(plan) == "segquant"
    assert plan.chosen_from[0].margin_stderr_db is None


@pytest.mark.parametrize("told", [{"refused": "2 ms, 1 allowed"}, {"pruned": "hopeless"}])
def test_what_does_not_compete_cannot_win(told: dict[str, str]) -> None:
    rival = candidate("segquant", **told)
    plan = choose((OWN, rival), trials((OWN, [40.0, 40.0]), (rival, [60.0, 60.0])), REQUEST)
    assert chosen(plan) == "auto"
    assert next(iter(told.values())) in plan.chosen_from[1].verdict
    assert plan.chosen_from[1].latent_db == 60.0  # what was measured is told all the same


def test_what_was_not_run_is_told_but_not_chosen() -> None:
    rivals = (RIVAL, candidate("plain", refused="too dear"))
    plan = choose((OWN, *rivals), trials((OWN, [40.0, 41.0])), REQUEST)
    assert chosen(plan) == "auto"
    assert [c.ran for c in plan.chosen_from] == [True, False, False]
    assert plan.chosen_from[2].verdict == "not run: too dear"


@pytest.mark.parametrize("known", [None, trials((RIVAL, [50.0, 50.0]), gain=-3.0)])
def test_without_a_trial_of_its_own_the_planner_is_believed(known: Trials | None) -> None:
    plan = choose((OWN, RIVAL), known, REQUEST)
    assert (plan.onnx_sha256, plan.chosen_from) == ("graph of auto", ())


def test_the_fastest_of_those_that_reached_a_target_wins() -> None:
    request = replace(REQUEST, target_sqnr_db=42.0)
    own, more = candidate("auto", 1.0), candidate("auto +1 dB", 1.2)
    slow = candidate("segquant", 1.4)
    tried = [(own, [40.0, 40.0]), (more, [41.0, 41.0]), (slow, [45.0, 45.0])]
    for reached, winner in (
        ({"auto": 42.3, "auto +1 dB": 43.0, "segquant": 44.0}, "auto"),
        ({"auto": 41.8, "auto +1 dB": 42.1, "segquant": 44.0}, "auto +1 dB"),
        ({"auto": 41.0, "auto +1 dB": 41.8, "segquant": 42.0}, "segquant"),
        ({"auto": 41.0, "auto +1 dB": 41.9, "segquant": 41.5}, "auto +1 dB"),
    ):
        plan = choose((own, more, slow), trials(*tried, in_steps=reached), request)
        assert chosen(plan) == winner
        assert {c.name: c.measured_db for c in plan.chosen_from} == reached
    assert "none reached 42 dB" in next(c.verdict for c in plan.chosen_from if c.chosen)


def test_gains_are_means_over_the_reference_plans() -> None:
    one, other = candidate("segquant", expected_db=44.0), candidate("tfmq", expected_db=39.0)
    tried = trials(
        (one, [40.0, 41.0]), (other, [38.0, 37.0]), in_steps={"segquant": 46.5, "tfmq": 39.5}
    )
    assert step_gain_db([one], tried.trials) == 2.5
    assert step_gain_db([other, one], tried.trials) == 1.5
    assert latent_gain_db([one], tried.trials) == -3.5
    assert latent_gain_db([other, one], tried.trials) == -2.5


def test_a_plan_that_was_not_run_is_expected_to_gain_like_others() -> None:
    known = trials((RIVAL, [40.0, 41.0]), step_gain=1.5, gain=-3.5)
    other = candidate("tfmq", expected_db=39.0)
    plan = choose((other,), known, REQUEST)
    assert plan.prediction is not None
    assert (plan.prediction.sqnr_db_mean, plan.prediction.latent_sqnr_db) == (40.5, 35.5)
    assert plan.chosen_from == ()


def test_a_plan_that_was_run_is_expected_to_do_it_again() -> None:
    known = trials((RIVAL, [40.0, 41.0]), step_gain=9.0, gain=9.0, in_steps={"segquant": 46.5})
    plan = choose((RIVAL,), known, REQUEST)
    assert plan.prediction is not None
    assert (plan.prediction.sqnr_db_mean, plan.prediction.latent_sqnr_db) == (46.5, 40.5)


def test_without_trials_the_scores_are_believed() -> None:
    plan = choose((RIVAL,), None, REQUEST)
    assert plan.prediction is not None
    assert (plan.prediction.sqnr_db_mean, plan.prediction.latent_sqnr_db) == (40.0, None)


def test_recorded_samples_are_no_latents() -> None:
    done = trials(
        (OWN, [40.0, 30.0]), (RIVAL, [41.0, 31.2]), latents=False,
        in_steps={"auto": 35.0, "segquant": 36.1},
    )  # fmt: skip
    plan = choose((OWN, RIVAL), done, REQUEST)
    assert chosen(plan) == "segquant"
    assert [c.latent_db for c in plan.chosen_from] == [None, None]
    assert [c.measured_db for c in plan.chosen_from] == [35.0, 36.1]
    assert plan.prediction is not None
    assert plan.prediction.sqnr_db_mean == 36.1
    assert plan.prediction.latent_sqnr_db is None
