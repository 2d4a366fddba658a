"""The multiple-choice knapsack: one option per group, least noise within a budget of time.

The mean over timestep bins of dB is not a sum over groups; weighing every bin's noise by one over
its present total makes it one to first order, and a few rounds settle the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError
from segquant_trt.plan.knapsack import Items, choose
from segquant_trt.plan.problem import FLOAT, Choice, Option, Problem

Double = npt.NDArray[np.float64]

_ROUNDS = 3
_SETTLED_DB = 1e-3
_RESOLUTION = 1e-3
_FLOOR = 1e-20


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The option chosen for every group, in the problem's order, and what they add up to."""

    chosen: tuple[Option, ...]
    noise: Double
    cost_ms: float

    @property
    def sqnr_db_mean(self) -> float:
        """Predicted SQNR of the denoiser's output, mean over timestep bins of dB."""
        return float(np.mean(-10.0 * np.log10(np.maximum(self.noise, _FLOOR))))


def total(problem: Problem, chosen: Sequence[Option]) -> Solution:
    """Sums of the chosen options."""
    noise = np.sum([option.noise for option in chosen], axis=0)
    cost = problem.kept_ms + sum(option.cost_ms for option in chosen)
    return Solution(chosen=tuple(chosen), noise=np.asarray(noise), cost_ms=cost)


def least_noise(problem: Problem, budget_ms: float, start: Solution) -> Solution:
    """The least noise for at most `budget_ms`; `start` gives the first weights of the bins.

    Raises:
        SegQuantError: not even the cheapest options fit the budget.
    """
    cheapest = total(
        problem, [min(coded(c), key=lambda option: option.cost_ms) for c in problem.choices]
    )
    if cheapest.cost_ms > budget_ms:
        raise SegQuantError(
            f"no plan takes at most {budget_ms:.4g} ms; the fastest one takes "
            f"{cheapest.cost_ms:.4g} ms (by the cost table)",
            hint="allow more with --max-latency",
        )
    best, weights = start if start.cost_ms <= budget_ms else cheapest, _weights(start)
    for _ in range(_ROUNDS):
        found = _solved(problem, budget_ms, weights)
        settled = best is not start and found.sqnr_db_mean < best.sqnr_db_mean + _SETTLED_DB
        best = max(best, found, key=lambda solution: solution.sqnr_db_mean)
        if settled:
            break
        weights = _weights(found)
    return best


def least_time(problem: Problem, target_db: float, start: Solution) -> Solution:
    """The least time whose predicted SQNR is at least `target_db`, by bisection of the budget.

    Raises:
        SegQuantError: no plan reaches the target.
    """
    low = sum(min(o.cost_ms for o in coded(c)) for c in problem.choices) + problem.kept_ms
    high = sum(max(o.cost_ms for o in c.options) for c in problem.choices) + problem.kept_ms
    best = least_noise(problem, high, start)
    if best.sqnr_db_mean < target_db:
        raise SegQuantError(
            f"no plan is expected to reach {target_db:g} dB; the best one reaches "
            f"{best.sqnr_db_mean:.1f} dB",
            hint="ask for less with --target-sqnr, or keep more sites in float (--keep-float)",
        )
    high = best.cost_ms
    while high - low > _RESOLUTION * high:
        middle = 0.5 * (low + high)
        found = least_noise(problem, middle, best)
        if found.sqnr_db_mean >= target_db:
            best, high = found, min(middle, found.cost_ms)
        else:
            low = middle
    return best


def coded(choice: Choice) -> list[Option]:
    """The options that are not float."""
    return [option for option in choice.options if option.index != FLOAT]


def _weights(solution: Solution) -> Double:
    return np.asarray(1.0 / np.maximum(solution.noise, _FLOOR))


def _solved(problem: Problem, budget_ms: float, weights: Double) -> Solution:
    """The solution for fixed weights of the bins."""
    fronts = [_front(choice, weights) for choice in problem.choices]
    flat = [option for front in fronts for option in front]
    items = Items(
        group=np.repeat(np.arange(len(fronts)), [len(front) for front in fronts]),
        noise=np.array([option.noise for option in flat]) @ weights,
        cost=np.array([option.cost_ms for option in flat]),
        work=np.array([option.float_macs for option in flat]),
    )
    chosen = choose(items, budget_ms - problem.kept_ms, problem.float_room)
    return total(problem, [flat[position] for position in chosen])


def _front(choice: Choice, weights: Double) -> list[Option]:
    """Coded options that no other beats in both cost and noise, by rising cost; and float."""
    options = coded(choice)
    noise = np.array([option.noise for option in options]) @ weights
    order = np.lexsort((noise, np.array([option.cost_ms for option in options])))
    least = np.minimum.accumulate(noise[order])
    useful = order[np.diff(least, prepend=np.inf) < 0.0]
    front = [options[position] for position in useful]
    return front + [option for option in choice.options if option.index == FLOAT]
