"""What a compilation's options ask of a plan, and what the user's rules leave of a site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.plan import PlanRequest, plan_request
from segquant_trt.plan.costs import Scaling
from segquant_trt.records import KeepFloat, SegmentPlan, Treatment, WeightPlan
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.rules import Rule, Rules
from tests.plan.made_up import (
    OPTIMISED,
    facts_of,
    labels,
    option,
    plan,
    score,
    scores_of,
    site,
    treatment,
)

SITES = [site(name) for name in ("down.attn", "down.ff", "up.attn")]
OPTIONS = (
    option(treatment("symmetric"), 4e-5),
    option(treatment("shifted"), 3e-5),
    option(treatment("shifted", weight=OPTIMISED), 2e-5),
    option(treatment("dual_full"), 1e-5),
    option(treatment("symmetric", factor="per_token"), 5e-6),
    option(treatment("shifted", "dual_full"), 1e-6),
)
BEST = "split(shifted+dual_full)"


def made(*rules: Rule, **asked):
    found = scores_of(*(score(s, *OPTIONS) for s in SITES))
    given = {"max_latency_ratio": 100.0} | asked
    return labels(plan(facts_of(*SITES), found, rules=Rules(rules=rules), **given))


def test_without_rules_the_best_is_taken() -> None:
    assert made() == [BEST] * 3


def test_rules_forbid_and_require_at_the_sites_that_they_name() -> None:
    found = made(
        Rule(sites="*.attn", forbid=("split",)),
        Rule(sites="module.up.*", require=("shifted", "w8")),
        Rule(sites="down.ff", require=("nearest", "symmetric", "static")),
    )
    assert found == ["symmetric/per_token", "symmetric", "shifted/w8-gptq"]


def test_rules_can_keep_sites_in_float() -> None:
    assert made(Rule(sites="down.*", keep_float=True)) == ["float", "float", BEST]


def test_rules_also_bind_presets() -> None:
    found = made(Rule(sites="up.attn", forbid=("shifted",)), preset="plain")
    assert found == ["shifted", "shifted", "symmetric"]


def test_a_rule_that_leaves_nothing_is_named() -> None:
    with pytest.raises(SegQuantError, match=r"no treatment is left for site 'down\.ff'") as refused:
        made(Rule(sites="*.ff", require=("dual_scale",)))
    assert "the rule for '*.ff' does not admit it" in refused.value.what
    assert "change the rules" in refused.value.hint


def test_a_rule_without_a_match_is_refused() -> None:
    with pytest.raises(SegQuantError, match="the rule for 'nowhere' matches none of the 3 sites"):
        made(Rule(sites="nowhere", forbid=("split",)))


@pytest.mark.parametrize(
    ("rule", "stays"),
    [
        (Rule(sites="other", forbid=("split",)), True),
        (Rule(sites="loud", forbid=("split",)), True),
        (Rule(sites="loud", require=("shifted",)), False),
        (Rule(sites="loud", forbid=("float_activation",)), False),
    ],
)
def test_auto_leaves_no_site_in_float_that_a_rule_wants_coded(rule: Rule, stays: bool) -> None:
    sites = [site("other", outputs=5000), site("loud")]
    loud = [replace(o, noise=(1.0, 1.0)) for o in OPTIONS]
    scores = scores_of(score(sites[0], *OPTIONS), score(sites[1], *loud))
    found = plan(facts_of(*sites), scores, rules=Rules(rules=(rule,)), float_share=0.015)
    assert found.sites[1].treatment.is_float is stays


def test_options_become_a_request(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("schema_version: 1\nrules:\n- {sites: 'a*', forbid: [split]}\n")
    options = CompileOptions(
        out=tmp_path,
        target="openvino",
        preset="segquant",
        objective="quality",
        target_sqnr=41.0,
        weight_bits=4,
        weight_only=True,
        weight_scales="mse",
        quantize_all=True,
        keep_float=("b",),
        rules=path,
        cost_scale="16,12",
    )
    assert plan_request(options) == PlanRequest(
        target="openvino",
        preset="segquant",
        objective="quality",
        target_sqnr_db=41.0,
        weight_bits=4,
        weight_only=True,
        weight_block=32,
        weight_scales="mse",
        quantize_all=True,
        keep_float=("b",),
        rules=Rules(rules=(Rule(sites="a*", forbid=("split",)),)),
        scaling=Scaling(rows=16.0, width=12.0),
    )


@pytest.mark.parametrize(
    ("text", "milliseconds", "ratio", "budget"),
    [(None, None, None, 10.3), ("7.5", 7.5, None, 7.5), ("7.5ms", 7.5, None, 7.5),
     ("1.2x", None, 1.2, 12.0)],
)  # fmt: skip
def test_a_latency_is_milliseconds_or_a_ratio(text, milliseconds, ratio, budget) -> None:
    request = plan_request(CompileOptions(out=Path(), max_latency=text))
    assert (request.max_latency_ms, request.max_latency_ratio) == (milliseconds, ratio)
    assert request.budget_ms(10.0) == pytest.approx(budget)


@pytest.mark.parametrize(("objective", "share"), [("speed", 1.0), ("quality", 1.2)])
def test_objectives_are_budgets(objective, share: float) -> None:
    assert PlanRequest(target="openvino", objective=objective).budget_ms(8.0) == 8.0 * share


@pytest.mark.parametrize(
    ("asked", "told"), [(None, "one weight scale per output channel"), (64, "per 64 inputs")]
)
def test_other_blocks_than_asked_for_are_refused(asked: int | None, told: str) -> None:
    own = site("a")
    uncoded = SegmentPlan(channels=own.in_features, activation=KeepFloat())
    weight = WeightPlan(bits=4, block=32)
    option = replace(OPTIONS[0], treatment=Treatment(segments=(uncoded,), weight=weight))
    scored = score(own, option)
    request = PlanRequest(target="onnxruntime", weight_bits=4, weight_only=True)
    refusal = replace(request, weight_block=asked).refusal(own, scored, option)
    assert refusal is not None
    assert told in refusal
    assert replace(request, weight_block=32).refusal(own, scored, option) is None


def test_scales_per_step_need_samples_along_the_first_axis() -> None:
    """A plan that has them elsewhere would be refused when it is applied."""
    own = SITES[0]
    options = (
        option(treatment("symmetric"), 4e-5),
        option(treatment("symmetric", factor="per_step"), 1e-6),
    )
    scores, facts = scores_of(score(own, *options)), facts_of(own)
    plenty = {"max_latency_ratio": 100.0}
    assert labels(plan(facts, scores, **plenty)) == ["symmetric/per_step"]
    elsewhere = frozenset((own.activation,))
    assert labels(plan(facts, scores, samples_elsewhere=elsewhere, **plenty)) == ["symmetric"]
    request = PlanRequest(target="onnxruntime", samples_elsewhere=elsewhere)
    told = request.refusal(own, score(own, *options), options[1])
    assert told == "the first axis of its input is not that of the timestep's samples"
