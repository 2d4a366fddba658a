"""The multiple-choice knapsack with two capacities, to a tenth of a percent of the noise.

The linear relaxation gives a bound and prices; items whose reduced noise exceeds what the best
known choice may still gain are left out, and branch and bound decides among the few that remain.
Kellerer, Pferschy, Pisinger: Knapsack Problems, chapter 11.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Double = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_GAP = 1e-3  # 0.004 dB
_TOLERANCE = 1e-9
_TINY = float(np.finfo(np.float64).tiny)
_DOUBLINGS = 200
_HALVINGS = 50
_EXCHANGES = 200
_UNDECIDED = 1e-6
_RESCALINGS = 5
_MUCH_LESS = 0.1
_NODES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """All groups' items: `group` [n] ascending without holes, and what each adds to three sums."""

    group: Index
    noise: Double
    cost: Double
    work: Double

    def some(self, wanted: Mask) -> Items:
        """Those that are `wanted`; of every group at least one must be."""
        return Items(
            group=self.group[wanted],
            noise=self.noise[wanted],
            cost=self.cost[wanted],
            work=self.work[wanted],
        )

    def least(self, values: Double) -> Double:
        """The least of `values` [n] in each item's group, [n]."""
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))
        least: Double = np.minimum.reduceat(values, starts)[self.group]
        return least

    def argleast(self, values: Double) -> Index:
        """The first item of the least value in every group."""
        hits = np.flatnonzero(values == self.least(values))
        return hits[np.flatnonzero(np.diff(self.group[hits], prepend=-1))]

    def idle(self, values: Double) -> Double:
        """`values`, infinite where there is work."""
        return np.where(self.work > 0.0, np.inf, values)

    def fit(self, chosen: Index) -> bool:
        """Whether costs and works that are measured in their rooms fit them."""
        most = 1.0 + _TOLERANCE
        return bool(self.cost[chosen].sum() <= most and self.work[chosen].sum() <= most)


def choose(items: Items, cost_room: float, work_room: float) -> Index:
    """One item of every group, of least noise in all, within both rooms.

    The cheapest items that are no work must fit.
    """
    cheapest = items.argleast(items.idle(items.cost))
    least = items.least(items.cost)
    slack = cost_room - float(least[cheapest].sum()) + _TOLERANCE * abs(cost_room)
    possible = (items.cost - least <= slack) & (items.work <= work_room)
    possible[cheapest] = True
    where = np.flatnonzero(possible)
    inside = items.some(possible)
    inside = replace(
        inside,
        cost=(inside.cost - least[possible]) / max(slack, _TINY),
        work=inside.work / max(work_room, _TINY),
    )
    silent = inside.least(inside.noise)
    base = float(silent[inside.argleast(inside.noise)].sum())
    excess = replace(inside, noise=inside.noise - silent)
    best = _cheapest_price(excess)
    return where[_improved(excess, best, base)]


def _improved(items: Items, best: Index, base: float) -> Index:
    """From one that fits to a choice whose noise, and `base`, are the least to within the gap."""
    for _ in range(_RESCALINGS):
        unit = float(items.noise[best].sum())
        if unit <= _GAP * (base + unit):
            break
        useful = items.noise <= unit
        useful[best] = True
        scaled = replace(items, noise=items.noise / unit).some(useful)
        refined = _refined(scaled, np.cumsum(useful)[best] - 1, base / unit)
        best = np.flatnonzero(useful)[refined]
        if items.noise[best].sum() > _MUCH_LESS * unit:
            break  # else the unit was too large for the solvers' tolerances
    return best


def _cheapest_price(items: Items) -> Index:
    """No work, and the least of noise plus a price of cost: the lowest price that fits."""

    def at(price: float) -> Index:
        return items.argleast(items.idle(items.noise + price * items.cost))

    if items.fit(at(0.0)):
        return at(0.0)
    low, high = 0.0, max(float(items.noise.max()), _TINY)
    for _ in range(_DOUBLINGS):
        if items.fit(at(high)):
            break
        low, high = high, 2.0 * high
    else:
        return items.argleast(items.idle(items.cost))
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if items.fit(at(middle)) else (middle, high)
    return at(high)


def _refined(items: Items, best: Index, base: float) -> Index:
    """The same, where the noise of `best` is 1."""
    from scipy.optimize import linprog

    rooms = np.stack([items.cost, items.work])
    relaxed = linprog(
        items.noise, A_ub=rooms, b_ub=[1.0, 1.0], A_eq=_one_each(items), b_eq=_ones(items),
        bounds=(0.0, None), method="highs",
    )  # fmt: skip
    if relaxed.x is None:
        return best
    # Two capacities leave at most two groups undecided: they take what needs less room.
    for need in (items.cost + items.work, items.cost, items.work):
        rounded = items.argleast(np.where(relaxed.x > _UNDECIDED, need, np.inf))
        if items.fit(rounded):
            best = min(best, _exchanged(items, rounded), key=lambda own: items.noise[own].sum())
    best = _exchanged(items, best)
    room = float(items.noise[best].sum() - relaxed.fun)
    gap = _GAP * (base + float(items.noise[best].sum()))
    if room <= gap:
        return best
    prices = relaxed.eqlin.marginals[items.group] + relaxed.ineqlin.marginals @ rooms
    core = items.noise - prices <= room + _TOLERANCE
    core[best] = True
    found = _searched(items.some(core), np.cumsum(core)[best] - 1, gap)
    return np.flatnonzero(core)[found]


def _exchanged(items: Items, chosen: Index) -> Index:
    """The choice after exchanging single items for quieter ones, the most useful first."""
    chosen = chosen.copy()
    for _ in range(_EXCHANGES):
        now = chosen[items.group]
        spare = [1.0 - float(own[chosen].sum()) for own in (items.cost, items.work)]
        gain = items.noise[now] - items.noise
        fits = (items.cost - items.cost[now] <= spare[0]) & (
            items.work - items.work[now] <= spare[1]
        )
        position = int(np.argmax(np.where(fits, gain, -np.inf)))
        if gain[position] <= 0.0:
            break
        chosen[items.group[position]] = position
    return chosen


def _searched(items: Items, best: Index, gap: float) -> Index:
    """By branch and bound."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    known = float(items.noise[best].sum())
    if known <= 0.0:
        return best
    result = milp(
        items.noise,
        constraints=[
            # At least one: nobody gains by two, and with exactly one HiGHS more often has to
            # repair what it found, and prints a line from C whenever it does.
            LinearConstraint(_one_each(items), 1.0, np.inf),
            LinearConstraint(np.stack([items.cost, items.work]), -np.inf, 1.0),
        ],
        integrality=np.ones(len(items.group)),
        bounds=Bounds(0.0, 1.0),
        options={"mip_rel_gap": min(gap / known, 0.5), "node_limit": _NODES},
    )
    if result.x is None:
        return best
    found = _exchanged(items, items.argleast(-result.x))
    return found if float(items.noise[found].sum()) < known else best


def _one_each(items: Items) -> Any:
    from scipy.sparse import csr_matrix

    count = len(items.group)
    return csr_matrix((np.ones(count), (items.group, np.arange(count))))


def _ones(items: Items) -> Double:
    return np.ones(int(items.group[-1]) + 1)
