"""The story of one site: names that are found, everything that is told, edits and other scores."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.plan import PlanRequest, weigh
from segquant_trt.records import GraphFacts, QuantPlan, Rejection, SitePolarity, TimestepOnlySite
from segquant_trt.report.description import Description
from segquant_trt.report.explain import explain, find_site
from tests.plan.made_up import (
    OPTIMISED,
    PRICES,
    SEARCHED,
    concat,
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
    site("up.0/fc", activation="x"),
    site("up.1/fc", activation="x"),
    site("up.1/attn.to_q"),
    site("out/conv", "final", op="Conv", kernel=(3, 3), groups=2),
    replace(site("node_7"), module="up.0.shared"),
    replace(site("node_8"), module="up.0.shared"),
)
FACTS = replace(
    facts_of(
        *SITES,
        segments=[
            concat("up.0/fc", 8, 12),
            concat("up.0/fc", 5, 5, side="output", pattern="split"),
        ],
        polarity=[SitePolarity(site="up.0/fc", segment=1, activation="gelu_tanh")],
    ),
    rejections=(
        Rejection(site="up.0/fc", pattern="concat", reason="joins tokens", nodes=("cat", "cat2")),
        Rejection(site="up.1/fc", pattern="stack", reason="not this one", nodes=()),
    ),
    timestep_only=(TimestepOnlySite(site="up.1/attn.to_q", values=("t",)),),
    prompt_constant=("node_7",),
    prompt_and_timestep=("node_8",),
)
OPTIONS = (
    option(treatment("symmetric"), 1e-4, 30.0),
    option(treatment("symmetric", weight=SEARCHED), 0.9e-4, 30.5),
    option(treatment("shifted", "dual_full", weight=OPTIMISED), 1e-6, 50.0),
    option(treatment("shifted", factor="per_step", smooth=True), 1e-5, None),
    option(treatment("float"), 1e-7, 60.0),
)
SCORES = scores_of(*(score(s, *OPTIONS) for s in SITES))
ASKED: dict[str, Any] = {"target": "onnxruntime", "float_share": 0.0, "max_latency_ratio": 99.0}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("up.1/fc", "up.1/fc"),
        ("module.up.1/fc", "up.1/fc"),
        ("*to_q", "up.1/attn.to_q"),
        ("module.out*", "out/conv"),
        ("node_8", "node_8"),
    ],
)
def test_sites_are_found_by_node_module_or_pattern(text: str, found: str) -> None:
    assert find_site(FACTS, text).name == found


@pytest.mark.parametrize(
    ("text", "listed"),
    [("*fc", "2 sites: up.0/fc, up.1/fc"), ("up.0.shared", "2 sites: node_7, node_8")],
)
def test_names_of_several_sites_are_refused(text: str, listed: str) -> None:
    with pytest.raises(SegQuantError) as refused:
        find_site(FACTS, text)
    assert listed in refused.value.what
    assert "one site" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "near"), [("up.2/fc", "up.0/fc"), ("TO_Q", "up.1/attn.to_q"), ("up.1.fc", "up.1/fc")]
)
def test_unknown_names_are_refused_beside_near_ones(text: str, near: str) -> None:
    with pytest.raises(SegQuantError, match="names none of the 6 sites") as refused:
        find_site(FACTS, text)
    assert near in refused.value.what
    assert "inspect RUN/facts.yaml" in refused.value.hint


def test_a_name_without_near_ones_is_refused() -> None:
    with pytest.raises(SegQuantError) as refused:
        find_site(FACTS, "§§§")
    assert refused.value.what == "'§§§' names none of the 6 sites"


def story(name: str, facts: GraphFacts = FACTS, made: QuantPlan | None = None) -> Description:
    request, costs = PlanRequest(**ASKED), table(**PRICES)
    whole = made or plan(facts, SCORES, costs, **ASKED)
    return explain(
        next(own for own in facts.sites if own.name == name),
        facts,
        next(own for own in SCORES.sites if own.site == name),
        next(own for own in whole.sites if own.site == name),
        weigh(facts, SCORES, costs, request, whole, name),
        notes=("a remark",),
    )


def test_everything_is_told() -> None:
    told = story("up.0/fc").as_dict()
    assert told["kind"] == "site"
    known = told["properties"]
    assert known["site"] == "up.0/fc"
    assert known["module"] == "module.up.0/fc"
    assert (known["operator"], known["role"]) == ("MatMul", "body")
    assert (known["inputs"], known["outputs"], known["kernel"]) == (20, 10, None)
    assert known["reads"] == "x"
    assert known["after"] == "gelu_tanh in segment 1"
    assert known["depends on"] is None
    assert known["decided with"] == "up.1/fc"
    assert known["amplification"] == "backward"
    assert known["chosen"] == "split(shifted+dual_full)/w8-gptq"
    assert "50.0 dB at the site" in known["why"]
    assert known["SQNR at the site, dB"] == 50.0
    assert known["share of expected error"] == pytest.approx(1 / 5), "of five coded sites"
    assert known["MACs per sample"] == 3 * 20 * 10
    assert told["tables"]["segments"] == [
        {"side": "input", "pattern": "concat", "channels": 8, "tensor": "up.0/fc/part0"},
        {"side": "input", "pattern": "concat", "channels": 12, "tensor": "up.0/fc/part1"},
        {"side": "output", "pattern": "split", "channels": 5, "tensor": "up.0/fc/part0"},
        {"side": "output", "pattern": "split", "channels": 5, "tensor": "up.0/fc/part1"},
    ]
    assert told["tables"]["near misses"] == [
        {"pattern": "concat", "why not": "joins tokens", "nodes": "cat, cat2"}
    ]
    codes = told["tables"]["codes"]
    assert [row["kind"] for row in codes] == ["shifted", "dual_full", "8 bits, gptq"]
    assert codes[0]["figures"] == "scale 0.01, zero shift 40; static"
    assert codes[2]["figures"] == "scale method mse, codes w-2"
    assert told["notes"][0] == "a remark"
    assert "one coding of 'x' serves 2 sites" in told["notes"][1]


def test_options_are_sorted_and_judged() -> None:
    rows = story("up.0/fc").as_dict()["tables"]["options, the cheapest first"]
    assert [row["cost, ms"] for row in rows] == sorted(row["cost, ms"] for row in rows)
    verdicts = {row["option"]: row["verdict"] for row in rows}
    assert verdicts == {
        "symmetric": "a cheaper one is as quiet",
        "symmetric, searched weight scales": "worth its price",
        "split(shifted+dual_full)/w8-gptq": "chosen",
        "shifted/per_step/smoothed": "worth its price",
        "weights alone": "not admitted: its inputs stay float",
        "left in float": "silent, but no integers",
    }
    by_name = {row["option"]: row for row in rows}
    assert by_name["symmetric"]["site, dB"] == 30.0
    assert by_name["symmetric"]["output, dB"] == pytest.approx(36.99, abs=0.01), "of both sites"
    assert by_name["shifted/per_step/smoothed"]["site, dB"] is None
    assert by_name["left in float"]["output, dB"] is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("up.1/attn.to_q", "the timestep alone"),
        ("node_7", "the prompt alone"),
        ("node_8", "prompt and timestep alone"),
    ],
)
def test_dependence_is_told(name: str, words: str) -> None:
    assert story(name).as_dict()["properties"]["depends on"] == words


def test_a_site_in_float_has_no_codes() -> None:
    told = story("out/conv").as_dict()
    assert told["properties"]["kernel"] == "3x3"
    assert told["properties"]["groups"] == 2
    assert told["properties"]["chosen"] == "float"
    assert told["properties"]["share of expected error"] == 0.0
    assert "final projection" in told["properties"]["why"]
    assert set(told["tables"]) == {"options, the cheapest first"}
    chosen = [r for r in told["tables"]["options, the cheapest first"] if r["verdict"] == "chosen"]
    assert [row["option"] for row in chosen] == ["left in float"]


def test_divisors_and_factors_are_told() -> None:
    made = plan(FACTS, SCORES, table(**PRICES), **ASKED)
    smooth = OPTIONS[3].treatment
    sites = [replace(s, treatment=smooth) if s.site == "node_7" else s for s in made.sites]
    codes = story("node_7", made=replace(made, sites=tuple(sites))).as_dict()["tables"]["codes"]
    assert [row["of"] for row in codes] == ["input", "weight", "divisor"]
    assert codes[0]["figures"].endswith("per_step; edges 0 500, factors 1.5 2.5")
    assert codes[2]["figures"] == "divisor d-1, alpha 0.5"


def test_edits_that_nobody_scored_are_noted() -> None:
    made = plan(FACTS, SCORES, table(**PRICES), **ASKED)
    odd = treatment("dual_scale")
    sites = [replace(s, treatment=odd) if s.site == "node_7" else s for s in made.sites]
    told = story("node_7", made=replace(made, sites=tuple(sites))).as_dict()
    assert told["properties"]["chosen"] == "dual_scale"
    assert told["properties"]["share of expected error"] is None
    assert told["properties"]["SQNR at the site, dB"] is None
    assert any("node_7 is treated in a way that was not scored" in note for note in told["notes"])


def test_it_is_text_and_json() -> None:
    for name in ("up.0/fc", "out/conv"):
        description = story(name)
        assert json.loads(json.dumps(description.as_dict(), allow_nan=False))["kind"] == "site"
        text = description.text(rows=None)
        assert "chosen" in text
        assert text.count("\n") > 20
