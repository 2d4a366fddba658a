"""The knapsack: the best of all combinations, budgets that are kept, targets that are reached."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.plan.problem import FLOAT, Problem
from segquant_trt.plan.solve import least_noise, least_time
from tests.plan.problems import cheapest_coded, every, problem

GAP = 1e-3
ROUNDING = 2e-6  # by which it may overstep the budget


@st.composite
def problems(
    draw: st.DrawFn, *, bins: int = 1, widest: float = 6.0, spread: float = 0.0
) -> Problem:
    """Up to 5 groups of up to 5 options, noise over `2 widest` decades, bins within `spread`."""
    cost = st.floats(0.01, 100.0) | st.just(0.0)
    around = st.lists(st.floats(-spread, spread), min_size=bins, max_size=bins)
    option = st.tuples(cost, st.floats(-widest, widest), around)
    groups = draw(st.lists(st.lists(option, min_size=1, max_size=5), min_size=1, max_size=5))
    floats = draw(st.booleans())
    macs = draw(st.lists(st.integers(1, 9), min_size=len(groups), max_size=len(groups)))
    return problem(
        [[(c, [10.0 ** (e + d) for d in more]) for c, e, more in group] for group in groups],
        kept_ms=draw(st.sampled_from([0.0, 3.0])),
        float_macs=[float(m) for m in macs] if floats else (),
        float_room=float(draw(st.integers(0, 20))),
    )


@settings(max_examples=150)
@given(problems(), st.floats(0.0, 1.0))
def test_the_least_noise_of_all_plans_within_a_budget(asked: Problem, share: float) -> None:
    start = cheapest_coded(asked)
    dearest = max(found.cost_ms for found in every(asked))
    budget = start.cost_ms + share * max(dearest - start.cost_ms, 0.0)
    found = least_noise(asked, budget, start)
    assert found.cost_ms <= budget * (1 + ROUNDING)
    best = min(p.noise[0] for p in every(asked) if p.cost_ms <= budget)
    assert found.noise[0] <= best * (1 + GAP)
    assert sum(option.float_macs for option in found.chosen) <= asked.float_room


@settings(max_examples=80, derandomize=True)
@given(problems(bins=3, spread=0.1), st.floats(0.0, 1.0))
def test_the_mean_of_decibels_over_bins_is_nearly_the_best(asked: Problem, share: float) -> None:
    """Weights of the bins are found in a few rounds: the best plan may be missed by a little."""
    start = cheapest_coded(asked)
    dearest = max(found.cost_ms for found in every(asked))
    budget = start.cost_ms + share * max(dearest - start.cost_ms, 0.0)
    found = least_noise(asked, budget, start)
    best = max(p.sqnr_db_mean for p in every(asked) if p.cost_ms <= budget)
    assert found.sqnr_db_mean >= start.sqnr_db_mean - 1e-9
    assert found.sqnr_db_mean >= best - 0.4


@settings(max_examples=60)
@given(problems(widest=3.0), st.floats(0.0, 1.0))
def test_the_cheapest_of_all_plans_that_reach_a_target(asked: Problem, share: float) -> None:
    start = cheapest_coded(asked)
    decibels = sorted(found.sqnr_db_mean for found in every(asked))
    target = decibels[0] + share * (decibels[-1] - decibels[0]) - 1e-3
    found = least_time(asked, target, start)
    assert found.sqnr_db_mean >= target
    best = min(p.cost_ms for p in every(asked) if p.sqnr_db_mean >= target + 5e-4)
    assert found.cost_ms <= max(best, start.cost_ms) * 1.002


def test_a_budget_that_is_exactly_the_cheapest_plans_is_enough() -> None:
    asked = problem([[(0.1, [1.0]), (0.3, [0.1])]] * 3, kept_ms=0.7)
    start = cheapest_coded(asked)
    assert least_noise(asked, start.cost_ms, start).cost_ms == start.cost_ms


@pytest.mark.parametrize("budget", [0.0, 0.9999999, 1.5])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    asked = problem([[(1.0, [1.0]), (2.0, [0.5])]], kept_ms=1.0)
    with pytest.raises(SegQuantError, match=r"no plan takes at most .* takes\s+2 ms") as refused:
        least_noise(asked, budget, cheapest_coded(asked))
    assert "--max-latency" in refused.value.hint


def test_an_unreachable_target_is_refused() -> None:
    asked = problem([[(1.0, [1e-3]), (2.0, [1e-4])], [(1.0, [9e-4])]])
    with pytest.raises(SegQuantError, match=r"reach 40 dB; the best one reaches 30\.0 dB") as error:
        least_time(asked, 40.0, cheapest_coded(asked))
    assert "--target-sqnr" in error.value.hint


def test_a_target_that_the_cheapest_plan_reaches_costs_no_more() -> None:
    asked = problem([[(1.0, [1e-3]), (2.0, [1e-4])]] * 4)
    found = least_time(asked, 10.0, cheapest_coded(asked))
    assert found.cost_ms == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("kept_ms", [0.0, 5.0])
def test_a_table_that_prices_nothing_is_no_obstacle(kept_ms: float) -> None:
    asked = problem([[(0.0, [1.0]), (0.0, [0.5])]] * 2, kept_ms=kept_ms)
    found = least_noise(asked, kept_ms, cheapest_coded(asked))
    assert found.noise.tolist() == [1.0]


def test_noise_of_zero_everywhere_is_solved() -> None:
    asked = problem([[(1.0, [0.0]), (2.0, [0.0])]] * 2)
    assert least_noise(asked, 4.0, cheapest_coded(asked)).sqnr_db_mean == 200.0


def test_one_hopeless_option_does_not_blur_the_others() -> None:
    """Plain codes of an input with massive outliers are a million times worse than the rest."""
    groups = [[(1.0, [1e6]), (1.1, [1e-4])]]
    groups += [[(1.0, [2.0e-5]), (1.0 + 0.01 * i, [1.99e-5])] for i in range(1, 12)]
    asked = problem(groups)
    found = least_noise(asked, 12.21, cheapest_coded(asked))
    best = 1e-4 + 11 * 2e-5 - 4 * 1e-7  # 0.1 for the first group, 0.01 + 0.02 + 0.03 + 0.04
    assert found.noise[0] == pytest.approx(best, rel=1e-5)


def test_float_goes_where_it_silences_most_per_work() -> None:
    groups = [[(1.0, [4.0])], [(1.0, [3.0])], [(1.0, [2.5])]]
    asked = problem(groups, float_macs=[10.0, 5.0, 5.0], float_room=10.0)
    found = least_noise(asked, 99.0, cheapest_coded(asked))
    assert [option.index for option in found.chosen] == [0, FLOAT, FLOAT]
    none = problem(groups, float_macs=[10.0, 5.0, 5.0], float_room=0.0)
    assert FLOAT not in {o.index for o in least_noise(none, 99.0, cheapest_coded(none)).chosen}


def test_bins_count_by_decibels_not_by_power() -> None:
    """Halving a quiet bin's noise is worth as much as halving a loud one's."""
    asked = problem([[(1.0, [1e-2, 1e-4]), (2.0, [0.9e-2, 1e-4]), (2.0, [1e-2, 0.3e-4])]])
    found = least_noise(asked, 2.0, cheapest_coded(asked))
    assert found.chosen[0].index == 2
    np.testing.assert_allclose(found.sqnr_db_mean, (20 + 45.2288) / 2, rtol=1e-5)
