"""What no call computes costs nothing in a plan, stays float, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.plan import plan_request
from segquant_trt.records import GraphFacts, TimestepOnlySite
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.scores import Scores
from tests.plan.made_up import (
    facts_of,
    label_of,
    of_bits,
    option,
    plan,
    score,
    scores_of,
    site,
    treatment,
)

NAMES = ("time", "text", "rows", "tokens", "fc", "fc2")
STEPPED = treatment("symmetric", factor="per_step")
OPTIONS = (
    option(treatment("symmetric"), 4e-5, 31.0),
    option(treatment("shifted"), 3e-5, 32.0),
    option(STEPPED, 2e-5, 41.5),
    option(treatment("symmetric", factor="per_token"), 1e-5, 60.0),
    option(of_bits(treatment("symmetric"), 4), 1e-5, 70.0),
)


def made_up() -> tuple[GraphFacts, Scores]:
    sites = [site(name) for name in NAMES]
    facts = replace(
        facts_of(*sites),
        timestep_only=(TimestepOnlySite(site="time", values=("time/y",)),),
        prompt_constant=("text",),
        prompt_and_timestep=("rows", "tokens"),
    )
    single = {"time", "rows"}
    scores = (score(s, *OPTIONS, rows=1 if s.name in single else 30) for s in sites)
    return facts, scores_of(*scores)


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ({}, ()),
        ({"frozen": True}, ("time",)),
        ({"hoisted": True}, ("text",)),
        ({"frozen": True, "hoisted": True}, ("time", "text", "rows")),
    ],
)
@pytest.mark.parametrize("preset", ["auto", "plain"])
def test_sites_out_of_the_loop_are_float_and_free(
    asked: dict[str, bool], gone: tuple[str, ...], preset: str
) -> None:
    facts, scores = made_up()
    found = plan(facts, scores, preset=preset, max_latency_ratio=None, **asked)
    assert [p.site for p in found.sites if p.treatment.is_float] == list(gone)
    assert found.prediction is not None
    without = replace(facts, sites=tuple(s for s in facts.sites if s.name not in gone))
    fewer = scores_of(*(s for s in scores.sites if s.site not in gone))
    bare = plan(
        replace(without, timestep_only=(), prompt_constant=(), prompt_and_timestep=()), fewer,
        preset=preset,
    )  # fmt: skip
    assert bare.prediction == found.prediction
    labels = {p.site: label_of(p) for p in found.sites if p.site not in gone}
    assert labels == {p.site: label_of(p) for p in bare.sites}


def test_what_rewriting_leaves_in_the_loop_is_planned_like_the_rest() -> None:
    """Taint is not all: some sites have a row per token after all."""
    facts, scores = made_up()
    asked = {"frozen": True, "hoisted": True, "max_latency_ratio": None}
    found = plan(facts, scores, removed=frozenset({"text"}), **asked)
    assert [p.site for p in found.sites if p.treatment.is_float] == ["text"]
    whys = {p.site: p.why for p in found.sites}
    assert "table" not in whys["time"]
    assert "once per prompt" not in whys["rows"]


def test_nothing_left_is_an_error_whatever_it_is_that_leaves_nothing() -> None:
    facts, scores = made_up()
    patterns = tuple(name for name in NAMES if name != "text")
    with pytest.raises(SegQuantError, match="nothing to quantise"):
        plan(facts, scores, hoisted=True, keep_float=patterns)


def test_reasons_say_what_else_there_was() -> None:
    """The best of each kind that was asked for; four bits and scales per token are others."""
    facts, scores = made_up()
    found = {p.site: p.why for p in plan(facts, scores, frozen=True, hoisted=True).sites}
    coded = "coded, its output reaches 32.0 dB with static scales and 41.5 dB with scales per step"
    assert found["time"] == (
        f"a table over the frozen schedule: exact, and no work at a call; {coded}"
    )
    assert found["text"].startswith("computed once per prompt, in float")
    assert found["rows"].endswith(f"exact, and no work at a call; {coded}")
    assert f"temporal: {coded}" in found["tokens"]
    assert "temporal" not in found["fc"]
    whole = {p.site: p.why for p in plan(facts, scores).sites}
    assert whole["time"].endswith(f"{coded}; with --freeze-schedule a table would be exact")
    assert whole["rows"].endswith(coded)


def test_without_a_schedule_scales_per_step_win_where_they_pay() -> None:
    """As at every site: by noise at the output and price; a tight budget takes plain codes."""
    facts, scores = made_up()
    rich = {p.site: label_of(p) for p in plan(facts, scores, max_latency_ratio=9.0).sites}
    assert rich["time"] == "symmetric/per_token"
    only = [replace(s, options=(OPTIONS[0], OPTIONS[2])) for s in scores.sites]
    rich = {
        p.site: label_of(p)
        for p in plan(facts, scores_of(*only), max_latency_ratio=9.0).sites
    }  # fmt: skip
    assert rich["time"] == "symmetric/per_step"
    poor = {p.site: label_of(p) for p in plan(facts, scores_of(*only), objective="speed").sites}
    assert poor["time"] == "symmetric"


def test_options_ask_for_it(tmp_path) -> None:
    request = plan_request(CompileOptions(out=tmp_path))
    assert (request.frozen, request.hoisted) == (False, False)
    asked = CompileOptions(out=tmp_path, freeze_schedule="default:4", hoist_prompt=True)
    request = plan_request(asked)
    assert (request.frozen, request.hoisted) == (True, True)
