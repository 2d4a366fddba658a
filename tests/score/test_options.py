"""Options of whole groups: what they add up to, against sites that are computed jointly."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from segquant_trt.records import KeepFloat, Static, Treatment, WeightPlan
from segquant_trt.records.scores import OptionScore, treatment_keys
from segquant_trt.schemes import SiteWeight, coded_weight, site_output
from segquant_trt.schemes.gptq import gptq
from segquant_trt.schemes.gram import gram
from segquant_trt.schemes.rounding import DAMPINGS
from segquant_trt.score.group import Group, Member
from segquant_trt.score.options import Arrays, OptionSearch
from segquant_trt.score.rounding import rounded
from tests.score.denoisers import site
from tests.score.groups import (
    activations,
    convolution,
    group,
    linears,
    member,
    patches_of,
    steps_of,
    weight,
)

SIZES = (13, 22)
NEAREST = WeightPlan(scale_method="absmax")
SEARCHED = WeightPlan(scale_method="mse")
OPTIMISED = WeightPlan(rounding="gptq", scale_method="mse")
FOUR = replace(OPTIMISED, bits=4)
LABELS = re.compile(r"^(float|symmetric|shifted|dual_scale|dual_full|split)\b")


def searched(found: Group, *weights: WeightPlan, method: str = "mse"):
    search = OptionSearch(weights=weights, method=method)
    return search.options(found), search.arrays


def codes_of(own: Member, treatment: Treatment, arrays: Arrays) -> SiteWeight:
    return coded_weight(own.weight, treatment, arrays, own.taps)


def joint_error(own: Member, rows, treatment: Treatment, arrays: Arrays, edges):
    """Everything at once by the reference: float64[B, R, N]."""
    flat = rows.reshape(-1, rows.shape[-1])
    steps = steps_of(edges, rows.shape[1])
    codes = codes_of(own, treatment, arrays)
    output = site_output(flat, codes, treatment, arrays, None, steps, own.taps)
    exact = flat.astype(np.float64) @ own.weight.T.astype(np.float64)
    return (output - exact).reshape(*rows.shape[:2], -1), exact.reshape(*rows.shape[:2], -1)


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio))


def assert_foretold(
    own: Member, option: OptionScore, rows, arrays: Arrays, edges, tolerance_db: float
) -> None:
    error, exact = joint_error(own, rows, option.treatment, arrays, edges)
    sqnr = decibels(np.square(exact).mean() / np.square(error).mean())
    assert option.sqnr_db == pytest.approx(sqnr, abs=tolerance_db), option.treatment.label
    noise = (np.square(error).mean(axis=1) * own.gains).sum(axis=1)
    assert decibels(np.mean(option.noise) / noise.mean()) == pytest.approx(0.0, abs=tolerance_db)
    for found, wanted in zip(option.noise, noise, strict=True):
        assert decibels(found / wanted) == pytest.approx(0.0, abs=3 * tolerance_db)


def twice(found: Group) -> Group:
    """Every row beside a copy: what every other row says is what all of them say."""
    members = [replace(m, rows=np.repeat(m.rows, 2, axis=1)) for m in found.members]
    rows = np.repeat(found.rows, 2, axis=1)
    return replace(found, members=tuple(members), rows=rows)


@pytest.mark.parametrize("plan", [NEAREST, SEARCHED], ids=["nearest", "searched"])
@pytest.mark.parametrize("seed", [1, 2])
def test_noise_of_inputs_and_weights_adds_up_in_linears(seed: int, plan: WeightPlan) -> None:
    found = twice(linears(seed, 150, SIZES, [24], polar=(1,)))
    options, arrays = searched(found, plan)
    (own,) = found.members
    assert len(options["fc0"]) > 20
    for option in options["fc0"]:
        assert_foretold(own, option, own.rows, arrays, found.edges, 0.3)


def test_noise_adds_up_in_convolutions() -> None:
    found = twice(convolution(3, 100, SIZES, 12))
    options, arrays = searched(found, NEAREST)
    (own,) = found.members
    for option in options["conv"]:
        assert_foretold(own, option, own.rows, arrays, found.edges, 0.4)


@pytest.mark.parametrize("plan", [OPTIMISED, FOUR], ids=["8 bits", "4 bits"])
def test_estimates_of_optimised_weights_hold_on_rows_that_were_not_seen(plan) -> None:
    rows = activations(4, 600, SIZES)
    seen = rows[:, ::2].copy()
    own = member(site("fc0", inputs=sum(SIZES), outputs=24), seen, 4)
    own = replace(own, white=own.gains)  # of inputs and of coarse weights alike
    found = replace(group([own], seen, SIZES), low=rows.min(axis=1), high=rows.max(axis=1))
    options, arrays = searched(found, plan, method="amax")
    for option in options["fc0"]:
        assert_foretold(own, option, rows[:, 1::2], arrays, found.edges, 0.7)


def test_float_inputs_leave_the_error_of_the_weights_alone() -> None:
    found = twice(linears(5, 100, SIZES, [24]))
    options, arrays = searched(found, NEAREST)
    (own,) = found.members
    (kept,) = [o for o in options["fc0"] if o.treatment.label == "float"]
    assert isinstance(kept.treatment.segments[0].activation, KeepFloat)
    assert_foretold(own, kept, own.rows, arrays, found.edges, 0.01)
    plain = [o for o in options["fc0"] if o.treatment.smoothing is None]
    assert kept.sqnr_db == max(o.sqnr_db for o in plain if len(o.treatment.segments) == 1)


@pytest.mark.parametrize("odd", [31, 32])
def test_gptq_is_judged_by_rows_that_it_has_not_seen(odd: int) -> None:
    rows, w = activations(6, odd, (19,)), weight(6, 8, 19)
    plan = replace(FOUR)
    found = rounded(w, rows, plan)
    seen = gram(rows[:, ::2])
    allowed = [gptq(w, seen, plan, damping=d).dequantize() for d in DAMPINGS]
    assert any(np.array_equal(found.estimate, estimate) for estimate in allowed)
    assert not np.array_equal(found.estimate, found.codes.dequantize()), "codes see all rows"


@pytest.mark.parametrize("odd", [31, 32])
def test_gptq_of_grouped_convolutions_does_not_see_the_judges_either(odd: int) -> None:
    """Every group of channels is a row of its own."""
    rows = patches_of(7, odd, (6,), 4)
    w = weight(7, 6, 8)  # 3 groups of 2 channels of 4 taps
    found = rounded(w, rows, FOUR)
    shares = np.concatenate(np.split(rows[:, ::2], 3, axis=-1), axis=1)
    allowed = [gptq(w, gram(shares), FOUR, damping=d).dequantize() for d in DAMPINGS]
    assert any(np.array_equal(found.estimate, estimate) for estimate in allowed)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_give_finite_noise(rows: int) -> None:
    """Conditioning has one row per image, and calibration may have seen one image per bin."""
    found = linears(8, rows, SIZES, [5])
    options, _ = searched(found, NEAREST, SEARCHED, OPTIMISED)
    for option in options["fc0"]:
        assert np.isfinite(option.noise).all()
        assert min(option.noise) > 0.0
        assert option.sqnr_db is not None
    rounding = {option.treatment.weight.rounding for option in options["fc0"]}
    assert rounding == ({"nearest"} if rows == 1 else {"nearest", "gptq"}), "no row left to judge"


def test_all_sites_of_a_group_have_the_same_options_in_the_same_order() -> None:
    found = linears(9, 60, SIZES, [7, 3, 12], polar=(1,))
    options, _ = searched(found, NEAREST, SEARCHED, OPTIMISED)
    first, *others = (options[f"fc{i}"] for i in range(3))
    for other in others:
        assert len(other) == len(first)
        for a, b in zip(first, other, strict=True):
            assert a.treatment.segments == b.treatment.segments
            assert a.treatment.smoothing == b.treatment.smoothing
            assert a.treatment.label == b.treatment.label
            weights = [replace(option.treatment.weight, codes=None) for option in (a, b)]
            assert weights[0] == weights[1]


def test_a_group_of_a_1x1_and_a_3x3_convolution_shares_its_codes() -> None:
    """So does the beginning of a residual block with its shortcut: no factor per row."""
    patches = patches_of(10, 40, SIZES, 9)
    centre = patches[..., 4::9].copy()
    wide = convolution(10, 4, SIZES, 6).members[0].site
    narrow = replace(wide, name="shortcut", kernel=(1, 1))
    found = group([member(wide, patches, 10), member(narrow, centre, 11)], centre, SIZES)
    options, _ = searched(found, NEAREST)
    labels = [[o.treatment.label for o in options[name]] for name in ("conv", "shortcut")]
    assert labels[0] == labels[1]
    assert not any("per_token" in label for label in labels[0])
    assert any("per_step" in label for label in labels[0])


def labels(found: Group, *weights: WeightPlan) -> list[str]:
    options, _ = searched(found, *(weights or (NEAREST,)))
    return [o.treatment.label for o in next(iter(options.values()))]


def test_what_is_offered_depends_on_the_group() -> None:
    whole = linears(11, 30, (20,), [6])
    assert not any("split" in label for label in labels(whole))
    assert any("per_step" in label for label in labels(whole))
    assert {"symmetric", "shifted", "dual_scale", "dual_full", "float"} <= set(labels(whole))
    without_time = group(whole.members, whole.rows[:1], edges=())
    timeless = [
        replace(m, rows=m.rows[:1], gains=m.gains[:1], white=m.white[:1])
        for m in without_time.members
    ]
    assert not any("per_step" in x for x in labels(replace(without_time, members=tuple(timeless))))
    segmented = labels(linears(11, 30, SIZES, [6]))
    assert "split(symmetric+symmetric)" in segmented
    assert "split(symmetric+dual_scale)" not in segmented
    polar = labels(linears(11, 30, SIZES, [6], polar=(1,)))
    assert "split(symmetric+dual_scale)" in polar
    every = labels(linears(11, 30, SIZES, [6], polar=(0, 1)))
    assert "split(dual_scale+dual_scale)" in every
    assert all(LABELS.match(label) for label in every)


def test_published_smoothing_is_among_the_options() -> None:
    found = labels(linears(12, 60, (40,), [16]))
    assert "symmetric/smoothed" in found
    assert "dual_scale/smoothed" in found


def test_every_group_of_a_convolution_counts_when_its_weights_are_rounded() -> None:
    """Inputs of the first group alone would leave the weights of the others to chance."""
    found = convolution(13, 30, (12,), 6, groups=3)
    scale = np.repeat(np.float32([1e-3, 1.0, 1.0]), 36)  # the first group hardly speaks
    own = replace(found.members[0], rows=found.members[0].rows * scale)
    made = group([own], found.rows * scale[4::9], (12,))
    options, arrays = searched(made, FOUR)
    plain = [o for o in options["conv"] if o.treatment.label == "symmetric/w4-gptq"]
    assert plain[0].treatment.weight is not None
    codes = arrays[f"{plain[0].treatment.weight.codes}.codes"]
    shares = np.concatenate(np.split(own.rows, 3, axis=-1), axis=1)
    allowed = [gptq(own.weight, gram(shares), FOUR, damping=d).codes for d in DAMPINGS]
    assert any(np.array_equal(codes, wanted) for wanted in allowed)


def test_grouped_convolutions_are_not_split() -> None:
    found = convolution(13, 30, (8, 4), 6, groups=3)
    options, _ = searched(found, NEAREST, SEARCHED)
    assert not any(len(o.treatment.segments) > 1 for o in options["conv"])
    assert all(np.isfinite(o.noise).all() for o in options["conv"])


def test_every_array_that_an_option_names_is_there_and_fits() -> None:
    found = linears(14, 40, SIZES, [7, 3], polar=(1,))
    options, arrays = searched(found, NEAREST, SEARCHED, OPTIMISED)
    named = set()
    for own in found.members:
        for option in options[own.site.name]:
            named.update(treatment_keys(option.treatment))
            parts = codes_of(own, option.treatment, arrays)
            assert sum(part.codes.shape[1] for part in parts) == 35
            assert all(len(part.codes) == own.site.out_features for part in parts)
    assert named == set(arrays), "nothing is stored that nobody names"


def test_options_are_the_same_every_time() -> None:
    found = linears(15, 25, SIZES, [6], polar=(1,))
    first, second = (searched(found, NEAREST, OPTIMISED) for _ in range(2))
    assert first[0] == second[0]
    assert {k: v.tobytes() for k, v in first[1].items()} == {
        k: v.tobytes() for k, v in second[1].items()
    }


def test_inputs_of_zeros_have_no_sqnr_and_no_noise() -> None:
    found = linears(16, 12, SIZES, [6])
    silent = replace(found.members[0], rows=np.zeros_like(found.rows))
    options, _ = searched(group([silent], silent.rows, SIZES), NEAREST, OPTIMISED)
    for option in options["fc0"]:
        assert option.sqnr_db is None
        assert not any(option.noise)


def test_factors_of_options_follow_the_timestep_bins() -> None:
    found = linears(17, 30, (20,), [6])
    options, _ = searched(found, NEAREST)
    for option in options["fc0"]:
        for part in option.treatment.segments:
            assert len(option.noise) == len(found.edges)
            if not isinstance(part.factor, Static) and part.factor.kind == "per_step":
                assert part.factor.edges == found.edges


def test_weights_alone_are_scored_in_blocks_under_float_inputs() -> None:
    found = linears(31, 60, (32, 17), [6])
    plans = [replace(plan, bits=4, block=16) for plan in (NEAREST, SEARCHED, OPTIMISED)]
    search = OptionSearch(weights=plans, method="mse", weight_only=True)
    options = search.options(found)["fc0"]
    (own,) = found.members
    assert [o.treatment.label for o in options] == ["float/w4", "float/w4", "float/w4-gptq"]
    for option in options:
        assert option.treatment.weight.block == 16
        (codes,) = codes_of(own, option.treatment, search.arrays)
        assert codes.scale.shape == (6, 4)
        coarse = replace(own, gains=own.white)
        assert_foretold(coarse, option, own.rows, search.arrays, found.edges, 2.0)
    assert not any(key.startswith("d-") for key in search.arrays)
