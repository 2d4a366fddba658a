"""What a plan chose at one site, weighed anew: equal figures, refusals, edits by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.plan import PlanRequest, Weighing, weigh
from segquant_trt.records import QuantPlan, left_in_float
from segquant_trt.records.rules import Rule, Rules
from tests.plan.made_up import (
    PRICES,
    facts_of,
    option,
    plan,
    score,
    scores_of,
    site,
    table,
    treatment,
)

SITES = (
    site("a", activation="x"),
    site("b", activation="x"),
    site("c", "final", activation="x"),
    site("conv", op="Conv", kernel=(3, 3)),
)
OPTIONS = (
    option(treatment("symmetric"), 1e-4, 30.0),
    option(treatment("shifted"), 1e-5, 40.0),
    option(treatment("shifted"), 1e-5, 40.0),
    option(treatment("shifted", factor="per_token"), 1e-6, 50.0),
    option(treatment("float"), 1e-7, 60.0),
)
FACTS = facts_of(*SITES)
SCORES = scores_of(
    *(score(s, *OPTIONS) for s in SITES[:3]),
    score(SITES[3], *OPTIONS, channels_noise=(2e-5, 4e-5), range_noise=(1e-3, 1e-3)),
)
TABLE = table(**PRICES)
RULES = Rules(rules=(Rule(sites="b", forbid=("symmetric",)),))


def made(**asked) -> tuple[QuantPlan, PlanRequest]:
    given = {"target": "onnxruntime", "float_share": 0.0, "max_latency_ratio": 99.0} | asked
    return plan(FACTS, SCORES, TABLE, **given), PlanRequest(**given)


def weighed(name: str, changed: QuantPlan | None = None, **asked) -> Weighing:
    whole, request = made(**asked)
    return weigh(FACTS, SCORES, TABLE, request, changed or whole, name)


def told(weighing: Weighing) -> dict[str, object]:
    return {"float" if o.scored is None else o.scored.treatment.label: o for o in weighing.options}


def test_figures_are_those_of_the_plan() -> None:
    whole, _ = made()
    found = weighed("a")
    assert found.sites == ("a", "b"), "the final projection stays in float"
    (entry,) = (own for own in whole.sites if own.site == "a")
    costs = {item.option: item.cost_ms for item in entry.considered}
    for label, own in told(found).items():
        if label in costs:
            assert own.cost_ms == pytest.approx(costs[label], rel=1e-3)
    assert [o.scored.treatment.label for o in found.options if o.chosen] == ["shifted/per_token"]
    assert found.noise == pytest.approx(1e-6)
    assert found.plan_noise == pytest.approx(2e-6 + 1e-5 + 3e-5)


def test_options_are_told_once_the_cheapest_first() -> None:
    found = weighed("a")
    costs = [own.cost_ms for own in found.options]
    assert costs == sorted(costs)
    labels = [own.scored.treatment.label for own in found.options if own.scored is not None]
    assert sorted(labels) == ["float", "shifted", "shifted/per_token", "symmetric"]
    assert [own.noise for own in found.options if own.scored is None] == [0.0]
    assert told(found)["shifted"].noise == pytest.approx(2e-5), "of both sites"


def test_refusals_say_why() -> None:
    linear, conv = told(weighed("a", rules=RULES)), told(weighed("conv"))
    assert linear["shifted"].refusal is None
    assert linear["symmetric"].refusal == "the rule for 'b' does not admit it", "of its group"
    assert conv["shifted/per_token"].refusal == "onnxruntime has no " + (
        "per_token factors of convolutions with more than one tap"
    )
    assert conv["symmetric"].refusal is None
    whole, request = made()
    alone = replace(request, weight_only=True)
    found = told(weigh(FACTS, SCORES, TABLE, alone, whole, "a"))
    assert found["shifted"].refusal == "weights alone are to be coded"
    assert "no 8-bit weights with float activations" in found["float"].refusal


def test_a_table_of_another_target_is_refused() -> None:
    whole, request = made()
    with pytest.raises(SegQuantError, match="the cost table is of the target 'openvino'"):
        weigh(FACTS, SCORES, table("openvino", **PRICES), request, whole, "a")


def test_requantised_outputs_are_among_the_noise() -> None:
    assert told(weighed("conv"))["shifted"].noise == pytest.approx(1e-5 + 3e-5)
    assert told(weighed("conv", preset="plain"))["shifted"].noise == pytest.approx(1e-5 + 1e-3)


def test_a_site_in_float_is_weighed_as_if_it_joined_the_others() -> None:
    found = weighed("c")
    assert found.sites == ("a", "b", "c")
    assert [own.scored for own in found.options if own.chosen] == [None]
    assert found.noise == 0.0


def edited(name: str, treated) -> QuantPlan:
    whole, _ = made()
    sites = [replace(s, treatment=treated) if s.site == name else s for s in whole.sites]
    return replace(whole, sites=tuple(sites))


def test_edits_to_another_option_are_followed() -> None:
    found = weighed("a", edited("a", treatment("symmetric")))
    assert [o.scored.treatment.label for o in found.options if o.chosen] == ["symmetric"]
    assert found.noise == pytest.approx(1e-4)
    found = weighed("a", edited("a", left_in_float(20)))
    assert [o.scored for o in found.options if o.chosen] == [None]


def test_edits_to_what_nobody_scored_have_no_share() -> None:
    plan_made = edited("b", treatment("dual_scale"))
    found = weighed("a", plan_made)
    assert found.unscored == ("b",)
    assert found.plan_noise is None
    own = weighed("b", plan_made)
    assert own.noise is None
    assert not any(option.chosen for option in own.options)
