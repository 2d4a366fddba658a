"""The file of rules: what it may say, what a site's treatment shows, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records import KeepFloat, left_in_float
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.rules import TRAITS, Rule, Rules, matches, traits_of
from tests.plan.made_up import OPTIMISED, of_bits, site, treatment

FILE = """\
schema_version: 1
rules:
- {sites: 'up.*', keep_float: true}
- {sites: '*attn*', require: [per_token, w8], forbid: [split]}
"""


def test_a_file_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(FILE)
    found = read_record(path, Rules)
    assert found.rules == (
        Rule(sites="up.*", keep_float=True),
        Rule(sites="*attn*", require=("per_token", "w8"), forbid=("split",)),
    )
    write_record(tmp_path / "again.yaml", found)
    assert read_record(tmp_path / "again.yaml", Rules) == found


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("{sites: a, require: [per_tokn]}", "per_tokn"),
        ("{sites: a, forbid: [int8]}", "int8"),
        ("{sites: a, forbid: [fp8]}", "fp8"),
    ],
)
def test_an_unknown_trait_is_named_beside_the_known_ones(tmp_path: Path, rule, named) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(f"schema_version: 1\nrules: [{rule}]\n")
    with pytest.raises(SegQuantError) as refused:
        read_record(path, Rules)
    assert str(path) in refused.value.what
    assert named in refused.value.what
    assert all(trait in refused.value.what for trait in TRAITS)
    assert "rules[0]" in refused.value.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: []\n", "schema_version None"),
        ("schema_version: 2\nrules: []\n", "schema_version 2; this program reads 1"),
        ("schema_version: 1\nrules: [{keep_float: true}]\n", "sites"),
        ("schema_version: 1\nrules: [{sites: a, forbids: [split]}]\n", "forbids"),
        ("schema_version: 1\nrules: [{sites: 3}]\n", "expected str @ $.rules[0].sites"),
        (
            "schema_version: 1\nrules: [{sites: a, keep_float: 1}]\n",
            "expected bool @ $.rules[0].keep_float",
        ),
        ("schema_version: 1\nrules: {sites: a}\n", "not a valid Rules"),
        ("[1, 2\n", "not valid YAML"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(SegQuantError, match=r"rules\.yaml") as refused:
        read_record(path, Rules)
    assert message in refused.value.what


@pytest.mark.parametrize(
    ("treated", "traits"),
    [
        (treatment("symmetric"), {"symmetric", "static", "w8", "nearest"}),
        (treatment("dual_full", factor="per_token", smooth=True),
         {"dual_full", "per_token", "smoothed", "w8", "nearest"}),
        (treatment("shifted", "dual_scale", factor="per_step", weight=OPTIMISED),
         {"shifted", "dual_scale", "per_step", "split", "w8", "gptq"}),
        (of_bits(treatment("float"), 4), {"float_activation", "static", "w4", "nearest"}),
        (treatment("float", "symmetric"),
         {"float_activation", "symmetric", "static", "split", "w8", "nearest"}),
        (left_in_float(20), {"float_activation", "static"}),
    ],
)  # fmt: skip
def test_traits(treated, traits) -> None:
    assert traits_of(treated) == traits
    assert traits <= set(TRAITS)


def test_every_trait_is_one_that_some_treatment_has() -> None:
    ways = [
        treatment(kind, factor=factor, smooth=True)
        for kind in ("symmetric", "shifted", "dual_scale", "dual_full")
        for factor in ("static", "per_token", "per_step")
    ]
    ways += [treatment("float", "symmetric", weight=OPTIMISED), of_bits(treatment("float"), 4)]
    assert isinstance(ways[-1].segments[0].activation, KeepFloat)
    assert set().union(*map(traits_of, ways)) == set(TRAITS)


@pytest.mark.parametrize(
    ("rule", "admitted"),
    [
        (Rule(sites="*"), True),
        (Rule(sites="*", require=("shifted", "per_token")), True),
        (Rule(sites="*", require=("shifted", "split")), False),
        (Rule(sites="*", forbid=("split", "symmetric")), True),
        (Rule(sites="*", forbid=("per_token",)), False),
        (Rule(sites="*", require=("w8",), forbid=("gptq",)), True),
    ],
)
def test_a_rule_admits_what_has_all_and_none_of_its_traits(rule: Rule, admitted: bool) -> None:
    assert rule.admits(treatment("shifted", factor="per_token")) is admitted


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("fc", True), ("module.f?", True), ("module.[a-g]c", True), ("FC", False), ("f", False),
     ("module.*", True), ("*", True)],
)  # fmt: skip
def test_patterns_are_shell_patterns_over_both_names(pattern: str, found: bool) -> None:
    assert matches(site("fc"), pattern) is found
