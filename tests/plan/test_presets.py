"""Each preset chooses what its table says, however good the other options are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segquant_trt.records import GraphFacts, LinearSite, SitePolarity
from segquant_trt.records.rules import Rule, Rules
from segquant_trt.records.scores import OptionScore, Scores
from tests.plan.made_up import (
    NEAREST,
    OPTIMISED,
    SEARCHED,
    concat,
    facts_of,
    labels,
    option,
    plan,
    score,
    scores_of,
    site,
    treatment,
)

WEIGHTS = {"nearest": NEAREST, "searched": SEARCHED, "gptq": OPTIMISED}
DUALS = ("dual_scale", "dual_full")


def offered(*, split: bool, polar: tuple[int, ...] = ()) -> list[OptionScore]:
    """As the score stage offers: every later one is better, optimised weights are best."""
    kinds: list[tuple[tuple[str, ...], dict[str, object]]] = [
        (("symmetric",), {}),
        (("shifted",), {}),
        *(((kind,), {}) for kind in DUALS),
        (("symmetric",), {"smooth": True}),
        (("shifted",), {"smooth": True}),
        *(((kind,), {"smooth": True}) for kind in DUALS),
        (("shifted",), {"factor": "per_step"}),
        (("shifted",), {"factor": "per_step", "smooth": True}),
        (("symmetric",), {"factor": "per_token"}),
    ]
    if split:
        kinds += [
            (("symmetric", "symmetric"), {}),
            (("shifted", "shifted"), {}),
            (("shifted", "shifted"), {"factor": "per_token"}),
            (("dual_full", "dual_full"), {}),
        ]
        published = tuple("dual_scale" if i in polar else "symmetric" for i in (0, 1))
        kinds += [(published, {})] if polar else []
    found = []
    for index, (names, given) in enumerate(kinds):
        for step, weight in enumerate(WEIGHTS.values()):
            noise = 1e-3 / (1 + index) * (1 - 0.1 * step)
            found.append(option(treatment(*names, weight=weight, **given), noise))
    found.append(option(treatment("float"), 1e-9))
    return found


def example(*, conv: bool = False) -> tuple[GraphFacts, Scores]:
    """A plain input, one after GELU, a Concat, one of which the second part is polar, and
    SiLU of a Concat."""

    def make(name: str) -> LinearSite:
        return site(name, op="Conv", kernel=(3, 3)) if conv else site(name)

    sites = [make(name) for name in ("plain", "gelu", "concat", "mixed", "whole")]
    facts = facts_of(
        *sites,
        segments=[concat(name, 8, 12) for name in ("concat", "mixed", "whole")],
        polarity=[
            SitePolarity(site="gelu", segment=None, activation="gelu"),
            SitePolarity(site="mixed", segment=1, activation="gelu"),
            SitePolarity(site="whole", segment=None, activation="silu"),
        ],
    )  # fmt: skip
    polar = {"gelu": (0,), "mixed": (1,), "whole": (0, 1)}
    scores = [
        score(s, *offered(split=s.name not in ("plain", "gelu"), polar=polar.get(s.name, ())))
        for s in sites
    ]
    return facts, scores_of(*scores)


TABLE = {
    "plain": ["shifted"] * 5,
    "seglinear": ["symmetric"] * 2 + ["split(symmetric+symmetric)"] * 3,
    "segquant": [
        "symmetric/smoothed",
        "dual_scale/smoothed",
        "split(symmetric+symmetric)",
        "split(symmetric+dual_scale)",
        "split(dual_scale+dual_scale)",
    ],
    "q-diffusion": ["shifted/searched"] * 2 + ["split(shifted+shifted)/searched"] * 3,
    "tfmq": ["shifted/per_step/searched"] * 5,
}
UNSPLIT = {
    "plain": ["shifted"] * 5,
    "seglinear": ["symmetric"] * 5,
    "segquant": ["symmetric/smoothed"] * 5,
    "q-diffusion": ["shifted/searched"] * 5,
    "tfmq": ["shifted/searched"] * 5,
}


@pytest.mark.parametrize("preset", TABLE)
def test_linears_get_what_the_table_says(preset: str) -> None:
    facts, scores = example()
    assert labels(plan(facts, scores, preset=preset)) == TABLE[preset]


@pytest.mark.parametrize("preset", UNSPLIT)
def test_convolutions_that_a_target_cannot_split_get_the_next_best(preset: str) -> None:
    """ONNX Runtime: no split or two-polarity convolutions, no factors where outputs are coded."""
    facts, scores = example(conv=True)
    assert labels(plan(facts, scores, preset=preset)) == UNSPLIT[preset]


@pytest.mark.parametrize("preset", TABLE)
def test_convolutions_are_treated_like_linears_where_that_is_possible(preset: str) -> None:
    facts, scores = example(conv=True)
    assert labels(plan(facts, scores, preset=preset, target="openvino")) == TABLE[preset]


def test_segquant_without_a_useful_divisor_leaves_it_out() -> None:
    facts, _ = example()
    plain = [
        score(
            known,
            *(
                own
                for own in offered(split=known.name not in ("plain", "gelu"), polar=polar)
                if own.treatment.smoothing is None
            ),
        )
        for known, polar in zip(facts.sites, ((), (0,), (), (1,), (0, 1)), strict=True)
    ]
    found = labels(plan(facts, scores_of(*plain), preset="segquant"))
    assert found[:2] == ["symmetric", "dual_scale"]
    assert found[2:] == TABLE["segquant"][2:]


def test_a_polar_input_that_is_not_split_is_dual_as_a_whole() -> None:
    """More segments than are split, behind one activation."""
    wanted = site("fc")
    facts = facts_of(
        wanted,
        segments=[concat("fc", *[4] * 5)],
        polarity=[SitePolarity(site="fc", segment=None, activation="silu")],
    )
    made = plan(facts, scores_of(score(wanted, *offered(split=False))), preset="segquant")
    assert labels(made) == ["dual_scale/smoothed"]


def test_plain_follows_the_wanted_weight_scales_and_published_presets_their_own() -> None:
    facts, scores = example()
    assert labels(plan(facts, scores, preset="plain", weight_scales="mse")) == (
        ["shifted/searched"] * 5
    )
    kept = plan(facts, scores, preset="segquant", weight_scales="mse")
    assert labels(kept) == TABLE["segquant"]


def test_plain_takes_the_better_of_two_rounded_codes() -> None:
    wanted = site("fc")
    options = (
        option(treatment("symmetric"), 1e-4),
        option(treatment("shifted"), 2e-4),
        option(treatment("dual_full"), 1e-6),
    )
    made = plan(facts_of(wanted), scores_of(score(wanted, *options)), preset="plain")
    assert labels(made) == ["symmetric"]


def test_presets_pass_what_none_of_their_ranks_fits_with_their_own_weights() -> None:
    """Rules may leave a site nothing that a preset would choose."""
    wanted = site("fc")
    options = [
        option(treatment("dual_full", weight=weight), noise)
        for weight, noise in ((NEAREST, 3e-5), (SEARCHED, 2e-5), (OPTIMISED, 1e-5))
    ]
    scores = scores_of(score(wanted, *options))
    assert labels(plan(facts_of(wanted), scores, preset="plain")) == ["dual_full"]
    assert labels(plan(facts_of(wanted), scores, preset="q-diffusion")) == ["dual_full/searched"]


def test_auto_is_not_bound_to_any_of_them() -> None:
    facts, scores = example()
    made = plan(facts, scores, max_latency_ratio=100.0)
    assert labels(made) == [
        "symmetric/per_token/w8-gptq",
        "symmetric/per_token/w8-gptq",
        "split(dual_full+dual_full)/w8-gptq",
        "split(symmetric+dual_scale)/w8-gptq",
        "split(dual_scale+dual_scale)/w8-gptq",
    ]


EVERY = (*TABLE, "auto")


@pytest.mark.parametrize("preset", EVERY)
def test_patterns_and_rules_keep_sites_in_float_under_every_preset(preset: str) -> None:
    facts, scores = example()
    rules = Rules(rules=(Rule(sites="module.mi*", keep_float=True),))
    made = plan(facts, scores, preset=preset, keep_float=("gelu",), rules=rules)
    assert [s.treatment.is_float for s in made.sites] == [False, True, False, True, False]
    assert made.sites[1].why == "kept in float by --keep-float 'gelu'"
    assert made.sites[3].why == "kept in float by the rule for 'module.mi*'"


@pytest.mark.parametrize("preset", EVERY)
def test_rules_forbid_and_require_under_every_preset(preset: str) -> None:
    facts, scores = example()
    forbidden = ("shifted", "split", "smoothed", "per_step", "per_token", "dual_full")
    rules = Rules(rules=(Rule(sites="*", forbid=forbidden),))
    found = labels(plan(facts, scores, preset=preset, rules=rules))
    assert all(label.split("/")[0] in ("symmetric", "dual_scale") for label in found)
    rules = Rules(rules=(Rule(sites="*", require=("dual_full",)),))
    found = labels(plan(facts, scores, preset=preset, rules=rules, max_latency_ratio=100.0))
    assert all("dual_full" in label for label in found)


@pytest.mark.parametrize("preset", EVERY)
def test_quantize_all_takes_delicate_roles_under_every_preset(preset: str) -> None:
    facts, scores = example()
    sites = (replace(facts.sites[0], role="embedder"), *facts.sites[1:])
    facts = replace(facts, sites=sites)
    kept = plan(facts, scores, preset=preset).sites[0]
    assert kept.treatment.is_float
    assert not plan(facts, scores, preset=preset, quantize_all=True).sites[0].treatment.is_float


@pytest.mark.parametrize(
    ("preset", "ranges"),
    [("plain", None), ("seglinear", "amax"), ("segquant", "amax"), ("q-diffusion", None),
     ("tfmq", "amax")],
)  # fmt: skip
def test_published_presets_cover_all_that_was_seen(preset: str, ranges: str | None) -> None:
    """However much better clipped ranges are, and the reverse."""
    wanted = site("fc")
    options = []
    for given, noise in (("amax", 2e-4), (None, 1e-4)):
        wide = given == "amax"
        options += [
            replace(
                option(treatment("symmetric", factor=factor, weight=weight), noise),
                ranges=given,
                sqnr_db=40.0 if wide else 50.0,
            )
            for factor in ("static", "per_step")
            for weight in (NEAREST, SEARCHED)
        ]
        options += [replace(option(treatment("shifted", weight=SEARCHED), noise), ranges=given)]
    if ranges is None:  # the better ones are not always the searched ones
        options = [replace(o, noise=tuple(1e-9 / n for n in o.noise)) for o in options]
    scores = scores_of(score(wanted, *options))
    made = plan(facts_of(wanted), scores, preset=preset)
    (entry,) = made.sites
    chosen = [o for o in options if o.treatment == entry.treatment]
    assert made.prediction.sqnr_db_mean == pytest.approx(
        -10 * np.log10(next(o for o in chosen if o.ranges == ranges).noise[0]), abs=0.01
    )
