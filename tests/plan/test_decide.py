"""Whole plans on made-up records: what stays in float, what is chosen, predicted and refused."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.records import GraphFacts, KeepFloat, QuantPlan, SiteRole, WeightPlan
from segquant_trt.records.codec import encode_yaml
from segquant_trt.records.scores import OptionScore, Scores, SiteScore
from tests.plan.made_up import (
    OPTIMISED,
    PRICES,
    SEARCHED,
    facts_of,
    label_of,
    labels,
    of_bits,
    option,
    plan,
    score,
    scores_of,
    site,
    table,
    treatment,
)

GOOD = option(treatment("shifted"), 1e-5, 40.0)
BETTER = option(treatment("shifted", factor="per_token"), 1e-6, 50.0)
OPTIONS = (option(treatment("symmetric"), 1e-4, 30.0), GOOD, BETTER)


def example(*roles: SiteRole) -> tuple[GraphFacts, Scores]:
    """Sites a, b, c, ... with the same three options."""
    sites = [site(name, role) for name, role in zip("abcdefgh", roles, strict=False)]
    return facts_of(*sites), scores_of(*(score(s, *OPTIONS) for s in sites))


@pytest.mark.parametrize("role", ["embedder", "modulation", "final"])
def test_delicate_roles_stay_float_unless_all_is_asked_for(role: SiteRole) -> None:
    facts, scores = example("body", role)
    kept = plan(facts, scores).sites[1]
    assert kept.treatment.is_float
    assert role in kept.why.replace("the final", "final")
    assert "--quantize-all" in kept.why
    assert kept.considered == ()
    assert not plan(facts, scores, quantize_all=True).sites[1].treatment.is_float


def test_patterns_match_sites_and_modules() -> None:
    facts, scores = example("body", "body", "body")
    made = plan(facts, scores, keep_float=("a", "module.b*"))
    assert [s.treatment.is_float for s in made.sites] == [True, True, False]
    assert made.sites[1].why == "kept in float by --keep-float 'module.b*'"


def test_a_pattern_without_a_match_is_refused() -> None:
    facts, scores = example("body")
    with pytest.raises(SegQuantError, match=r"--keep-float 'nowhere\*' matches none of the 1"):
        plan(facts, scores, keep_float=("nowhere*",))


@pytest.mark.parametrize("asked", [{}, {"keep_float": ("a",)}])
def test_nothing_to_quantise_is_refused(asked) -> None:
    facts, scores = example("body" if asked else "final")
    with pytest.raises(SegQuantError, match="nothing to quantise"):
        plan(facts, scores, **asked)


def test_scores_of_another_model_are_refused() -> None:
    facts, scores = example("body")
    with pytest.raises(SegQuantError, match=r"scores\.safetensors and facts\.yaml are of") as e:
        plan(facts, replace(scores, onnx_sha256="other"))
    assert "segquant-trt score" in e.value.hint


def test_costs_of_another_target_are_refused() -> None:
    facts, scores = example("body")
    with pytest.raises(SegQuantError, match="is of the target 'openvino', the plan for 'onnxrunt"):
        plan(facts, scores, table("openvino", **PRICES))


@pytest.mark.parametrize(
    ("fields", "macs"),
    [({}, 3 * 20 * 10), ({"kernel": (3, 3)}, 3 * 20 * 10 * 9),
     ({"kernel": (3, 3), "groups": 10}, 3 * 2 * 10 * 9)],
)  # fmt: skip
def test_macs_are_output_elements_times_inputs_per_output(fields, macs: int) -> None:
    wanted = site("a", op="Conv" if fields else "MatMul", **fields)
    (decided,) = plan(facts_of(wanted), scores_of(score(wanted, *OPTIONS))).sites
    assert decided.macs_per_sample == macs


def test_a_plan_carries_what_it_was_made_from_and_for() -> None:
    facts, scores = example("body")
    made = plan(facts, scores, preset="plain")
    assert (made.target, made.preset, made.onnx_sha256) == ("onnxruntime", "plain", "m")
    assert (made.facts_sha256, made.calibration_sha256, made.scores_sha256) == ("f", "c", "s")


def group(*names: str) -> tuple[GraphFacts, list[SiteScore]]:
    """Sites that read one tensor; the last one would rather have symmetric codes."""
    sites = [site(name, activation="x") for name in names]
    picky = option(treatment("symmetric"), 5e-6), option(treatment("shifted"), 8e-6), BETTER
    found = [score(s, *(picky if s is sites[-1] else OPTIONS[:3])) for s in sites]
    return facts_of(*sites), found


def test_all_sites_of_a_group_are_treated_alike() -> None:
    facts, found = group("a", "b", "c")
    made = plan(facts, scores_of(*found), max_latency_ratio=1.0)
    assert labels(made) == ["shifted"] * 3, "one Q serves all: the sum of noise decides"
    assert "with 2 others" in made.sites[0].why


def test_a_group_does_without_its_sites_that_stay_in_float() -> None:
    facts, found = group("a", "b", "c")
    made = plan(facts, scores_of(*found), keep_float=("a", "b"), max_latency_ratio=1.0)
    assert labels(made) == ["float", "float", "symmetric"]
    assert "others" not in made.sites[2].why


def test_an_option_must_suit_all_sites_of_a_group() -> None:
    """Of a 3x3 and a 1x1 convolution only one admits a factor per token."""
    sites = [site(n, op="Conv", kernel=(k, k), activation="x") for n, k in (("a", 1), ("b", 3))]
    scores = scores_of(*(score(s, *OPTIONS) for s in sites))
    made = plan(facts_of(*sites), scores, target="openvino", max_latency_ratio=9.0)
    assert labels(made) == ["shifted", "shifted"]


def test_predictions_add_up_noise_and_time() -> None:
    facts, scores = example("body", "body", "final")
    costs = table(call=1e6)
    made = plan(facts, scores, costs, preset="plain")
    assert made.prediction is not None
    assert made.prediction.sqnr_db_mean == pytest.approx(-10 * np.log10(2e-5), abs=0.01)
    assert made.prediction.latency_ms == made.prediction.latency_ms_plain == 3.0
    twice = replace(GOOD, noise=(1e-5, 1e-3))
    uneven = scores_of(*(replace(s, options=(twice,)) for s in scores.sites))
    made = plan(facts, uneven, costs, preset="plain")
    wanted = np.mean([-10 * np.log10(2e-5), -10 * np.log10(2e-3)])
    assert made.prediction.sqnr_db_mean == pytest.approx(wanted, abs=0.01), "the mean of dB"


def test_reasons_carry_the_figures() -> None:
    facts, scores = example("body", "body")
    made = plan(facts, scores, max_latency_ratio=100.0)
    why = made.sites[0].why
    assert why.startswith("shifted/per_token: 50.0 dB at the site against 40.0 dB at the site of")
    assert "ms; 50.0% of the plan's expected error" in why
    told = {entry.option: entry for entry in made.sites[0].considered}
    assert set(told) == {"shifted", "shifted/per_token"}, "symmetric is worse at the same price"
    assert told["shifted/per_token"].reason == "chosen"
    assert told["shifted"].reason.startswith("plain; 10 times the chosen one's noise at -")
    assert told["shifted"].sqnr_db == 40.0
    assert told["shifted"].cost_ms < told["shifted/per_token"].cost_ms


def test_a_site_without_signal_gets_a_usable_plan() -> None:
    wanted = site("a")
    silent = (option(treatment("symmetric"), 0.0, None), option(treatment("shifted"), 0.0, None))
    (decided,) = plan(facts_of(wanted), scores_of(score(wanted, *silent))).sites
    assert decided.treatment.is_integer
    assert "no signal" in decided.why


def conv_example(*, preset: str = "auto", target: str = "onnxruntime") -> QuantPlan:
    """Codes whose noise is less than that of requantising the output."""
    sites = [site("a", op="Conv", kernel=(3, 3)), site("b")]
    scores = scores_of(
        score(sites[0], GOOD, range_noise=(4e-5, 4e-5), channels_noise=(1e-5, 1e-5)),
        score(sites[1], GOOD),
    )
    return plan(facts_of(*sites), scores, preset=preset, target=target)


def test_requantised_outputs_count_where_the_target_requantises() -> None:
    assert conv_example().prediction.sqnr_db_mean == pytest.approx(-10 * np.log10(3e-5), abs=0.01)
    published = conv_example(preset="segquant").prediction
    assert published.sqnr_db_mean == pytest.approx(-10 * np.log10(6e-5), abs=0.01)
    elsewhere = conv_example(target="openvino").prediction
    assert elsewhere.sqnr_db_mean == pytest.approx(-10 * np.log10(2e-5), abs=0.01)


def test_scales_per_output_channel_are_for_convolutions_of_auto() -> None:
    conv, linear = conv_example().sites
    assert conv.output_channels == "o-a"
    assert conv.output_range == (-2.0, 3.0)
    assert linear.output_channels is None
    for published in (conv_example(preset="plain"), conv_example(target="openvino")):
        assert published.sites[0].output_channels is None


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_have_the_bits_that_are_asked_for(bits) -> None:
    wanted = site("a")
    options = [replace(GOOD, treatment=of_bits(GOOD.treatment, b)) for b in (8, 4)]
    made = plan(facts_of(wanted), scores_of(score(wanted, *options)), weight_bits=bits)
    assert made.sites[0].treatment.weight.bits == bits


def test_bits_that_were_not_scored_are_refused() -> None:
    facts, scores = example("body")
    with pytest.raises(SegQuantError, match="no treatment is left for site 'a' on 'onnxr") as e:
        plan(facts, scores, weight_bits=4)
    assert "4-bit weights are asked for" in e.value.what
    assert "score --weight-bits" in e.value.hint


def weights_alone(bits: int) -> tuple[OptionScore, ...]:
    plans = (WeightPlan(bits=bits), replace(SEARCHED, bits=bits), replace(OPTIMISED, bits=bits))
    noises = (1e-5, 5e-6, 1e-6)
    return tuple(
        option(treatment("float", weight=own), noise)
        for own, noise in zip(plans, noises, strict=True)
    )


def test_weights_alone_are_coded_in_linears() -> None:
    sites = [site("a"), site("conv", op="Conv", kernel=(3, 3))]
    integer = option(of_bits(treatment("symmetric"), 4), 1e-9)
    scores = scores_of(*(score(s, integer, *weights_alone(4)) for s in sites))
    made = plan(facts_of(*sites), scores, weight_only=True, weight_bits=4)
    assert labels(made) == ["float/w4-gptq", "float"] or not made.sites[0].treatment.is_float
    linear, conv = made.sites
    assert isinstance(linear.treatment.segments[0].activation, KeepFloat)
    assert linear.treatment.weight.rounding == "gptq"
    assert conv.treatment.is_float
    assert "convolution" in conv.why
    plain = plan(facts_of(*sites), scores, weight_only=True, weight_bits=4, preset="plain")
    assert plain.sites[0].treatment.weight == WeightPlan(bits=4), "nearest, as plain codes are"


def test_a_target_without_such_weights_says_so() -> None:
    wanted = site("a")
    scores = scores_of(score(wanted, *weights_alone(8)))
    with pytest.raises(SegQuantError, match="onnxruntime has no 8-bit weights with float activ"):
        plan(facts_of(wanted), scores, weight_only=True)
    made = plan(facts_of(wanted), scores, weight_only=True, target="openvino")
    assert not made.sites[0].treatment.is_float


def test_convolutions_that_requantise_have_no_row_factors() -> None:
    """Ranges are those of outputs, and what is coded would be outputs over the factor."""
    wanted = site("a", op="Conv", kernel=(1, 1))
    scores = scores_of(score(wanted, *OPTIONS))
    assert labels(plan(facts_of(wanted), scores, max_latency_ratio=99.0)) == ["shifted"]
    free = plan(facts_of(wanted), scores, max_latency_ratio=99.0, target="openvino")
    assert labels(free) == ["shifted/per_token"]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"objective": "speed"}, "shifted"),
        ({"objective": "balanced"}, "shifted"),
        ({"max_latency_ratio": 1.4}, "shifted"),
        ({"objective": "speed", "max_latency_ratio": 1.6}, "shifted/per_token"),
        ({"objective": "quality", "max_latency_ms": 3.2}, "shifted/per_token"),
        ({"max_latency_ms": 2.9}, "shifted"),
        ({"target_sqnr_db": 49.0}, "shifted"),
        ({"target_sqnr_db": 51.0}, "shifted/per_token"),
    ],
)
def test_limits_decide_what_is_spent(asked, wanted: str) -> None:
    """One row factor costs half of a plain site's two milliseconds."""
    facts, scores = example("body")
    costs = table(call=2e6, row_factor=1e6 / (6 * 20))
    assert labels(plan(facts, scores, costs, **asked)) == [wanted]


def test_impossible_limits_are_refused() -> None:
    facts, scores = example("body")
    costs = table(call=2e6)
    with pytest.raises(
        SegQuantError, match=r"no plan takes at most 1\.9 ms; the fastest one takes 2"
    ):
        plan(facts, scores, costs, max_latency_ms=1.9)
    with pytest.raises(
        SegQuantError, match=r"no plan is expected to reach 61 dB; .* reaches 60\.0"
    ):
        plan(facts, scores, costs, target_sqnr_db=61.0)


def noisy_example() -> tuple[GraphFacts, Scores]:
    """A small site whose noise is a thousand times that of the large ones."""
    sites = [site("a", outputs=1000), site("b", outputs=1000), site("small", outputs=10)]
    loud = [replace(o, noise=tuple(1e3 * n for n in o.noise)) for o in OPTIONS]
    return facts_of(*sites), scores_of(
        *(score(s, *OPTIONS) for s in sites[:2]), score(sites[2], *loud)
    )


def test_auto_leaves_little_work_with_much_noise_in_float() -> None:
    facts, scores = noisy_example()
    made = plan(facts, scores, float_share=0.015, max_latency_ratio=1.3)
    assert [s.treatment.is_float for s in made.sites] == [False, False, True]
    why = made.sites[2].why
    assert "little work and much noise" in why
    assert "40.0 dB at the site" in why
    assert made.sites[2].output_range is None
    assert not plan(facts, scores, float_share=0.004).sites[2].treatment.is_float
    for preset in ("plain", "segquant"):
        made = plan(facts, scores, preset=preset, float_share=0.015)
        assert not any(s.treatment.is_float for s in made.sites)


def test_equal_records_give_equal_bytes() -> None:
    facts, scores = large(60, 12)
    first = encode_yaml(plan(facts, scores))
    again = encode_yaml(plan(*large(60, 12)))
    assert first == again


def large(count: int, options: int, seed: int = 0) -> tuple[GraphFacts, Scores]:
    """Sites of many sizes, every fifth with the one before, with noise of many decades."""
    random = np.random.default_rng(seed)
    kinds = ("symmetric", "shifted", "dual_scale", "dual_full")
    ways = [
        treatment(kind, factor=factor, smooth=smooth, weight=weight)
        for kind in kinds
        for factor in ("static", "per_token", "per_step")
        for smooth in (False, True)
        for weight in (WeightPlan(), SEARCHED, OPTIMISED)
    ][:options]
    sites, scores = [], []
    for index in range(count):
        outputs = int(random.integers(8, 200))
        wanted = site(f"s{index}", outputs=outputs, activation=f"t{index - (index % 5 == 4)}")
        base = np.exp(random.normal(-14, 2))
        found = []
        for way in ways:
            noise = base * np.exp(random.normal(0, 1)) * np.exp(random.normal(0, 0.2, 2))
            found.append(OptionScore(treatment=way, noise=tuple(map(float, noise)), sqnr_db=35.0))
        sites.append(wanted)
        scores.append(score(wanted, *found, rows=int(random.integers(1, 256))))
    return facts_of(*sites), scores_of(*scores)


@pytest.mark.parametrize("asked", [{}, {"target_sqnr_db": 30.0}], ids=["budget", "target"])
def test_a_large_model_is_planned_in_seconds(asked) -> None:
    facts, scores = large(750, 40)
    start = time.process_time()
    made = plan(facts, scores, float_share=0.015, **asked)
    assert time.process_time() - start < 20.0
    assert len(made.sites) == 750
    plain = plan(facts, scores, preset="plain").prediction
    if asked:
        assert made.prediction.sqnr_db_mean >= 30.0
    else:
        assert made.prediction.sqnr_db_mean > plain.sqnr_db_mean + 3.0
        assert made.prediction.latency_ms <= 1.051 * made.prediction.latency_ms_plain
    assert len({label_of(s) for s in made.sites}) > 5


def test_a_site_that_reaches_no_output_says_so() -> None:
    used, idle = site("used"), site("idle")
    silent = [replace(o, noise=(0.0, 0.0)) for o in OPTIONS]
    scores = scores_of(score(used, *OPTIONS), score(idle, *silent, amplification="unreached"))
    first, second = plan(facts_of(used, idle), scores).sites
    assert "reaches no output" in second.why
    assert "reaches no output" not in first.why
    assert label_of(second) == "symmetric", "the cheapest, as all are silent"


def test_sites_that_are_quantised_already_have_no_options_and_stay() -> None:
    free, coded = site("free"), replace(site("coded"), weight_path=("DequantizeLinear",))
    scores = scores_of(score(free, *OPTIONS), score(coded))
    first, second = plan(facts_of(free, coded), scores, quantize_all=True).sites
    assert not first.treatment.is_float
    assert second.treatment.is_float
    assert second.why == "its weight is quantised already"
