"""The knapsack on a planner's sizes: it keeps to both rooms, and to itself."""

from __future__ import annotations

import numpy as np
import pytest

from segquant_trt.plan.knapsack import Items, choose


def items_of(seed: int) -> Items:
    random = np.random.default_rng(seed)
    groups, each = random.integers(20, 120), random.integers(3, 30)
    group = np.repeat(np.arange(groups), each)
    noise = np.exp(random.normal(0, 3, len(group)))
    cost = np.exp(random.normal(0, 1, len(group))) / (1 + 0.1 * np.log1p(1 / noise))
    work = np.where(random.random(len(group)) < 0.05, random.random(len(group)), 0.0)
    work[::each] = 0.0
    return Items(group=group, noise=noise, cost=cost, work=work)


@pytest.mark.parametrize("seed", [17, 58])
def test_nothing_is_printed_and_rooms_are_kept(
    seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """HiGHS prints from C on these, where groups are constrained to exactly one item."""
    items = items_of(seed)
    idle = np.where(items.work > 0.0, np.inf, items.cost)
    room = 1.1 * float(items.least(idle)[np.diff(items.group, prepend=-1) > 0].sum())
    chosen = choose(items, room, 0.5)
    assert items.group[chosen].tolist() == list(range(int(items.group[-1]) + 1))
    assert items.cost[chosen].sum() <= room * (1 + 2e-6)
    assert items.work[chosen].sum() <= 0.5 * (1 + 2e-6)
    assert capfd.readouterr() == ("", "")
