"""Planning problems by hand: groups, options, costs, and the best choice by trying all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from segquant_trt.plan.problem import FLOAT, Choice, Option, Problem
from segquant_trt.plan.solve import Solution, total


def problem(
    groups: Sequence[Sequence[tuple[float, Sequence[float]]]],
    *,
    kept_ms: float = 0.0,
    float_macs: Sequence[float] = (),
    float_room: float = 0.0,
) -> Problem:
    """Groups of (cost, noise per bin); with `float_macs` each may stay in float for nothing."""
    choices = []
    for index, group in enumerate(groups):
        options = [
            Option(index=i, cost_ms=cost, noise=np.array(noise, dtype=np.float64))
            for i, (cost, noise) in enumerate(group)
        ]
        if float_macs:
            silent = np.zeros_like(options[0].noise)
            macs = float_macs[index]
            options.append(Option(index=FLOAT, cost_ms=1.0, noise=silent, float_macs=macs))
        choices.append(Choice(tensor=f"t{index}", sites=(f"s{index}",), options=tuple(options)))
    return Problem(choices=tuple(choices), kept_ms=kept_ms, float_room=float_room)


def every(given: Problem) -> Iterator[Solution]:
    """All solutions that leave no more in float than there is room for."""
    for chosen in itertools.product(*(choice.options for choice in given.choices)):
        if sum(option.float_macs for option in chosen) <= given.float_room:
            yield total(given, chosen)


def cheapest_coded(given: Problem) -> Solution:
    """Where a search may begin."""
    return total(
        given,
        [
            min((o for o in choice.options if o.index != FLOAT), key=lambda o: o.cost_ms)
            for choice in given.choices
        ],
    )
