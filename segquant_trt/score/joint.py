"""Errors of coarse weights add up across sites: all are switched at once, and held against sums.

A rounding that clips shrinks every site's output a little, and what every site does alike reaches
the denoiser's output in phase, where powers of noise alone would add up to too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from segquant_trt.models.family import Family
from segquant_trt.records import WeightPlan
from segquant_trt.score.amplify import Inputs, bins_of, mean_per_bin
from segquant_trt.score.group import Double, Float, Group, Member, Rounding, rounding_of
from segquant_trt.score.rounding import admitted, judges, rounded

_LARGEST_FACTOR = 10.0


def joint_factors(
    module: Any,
    family: Family,
    groups: Iterable[Group],
    plans: Sequence[WeightPlan],
    batches: Sequence[Inputs],
    *,
    edges: Sequence[float],
    on_group: Callable[[], None] | None = None,
) -> dict[Rounding, Double]:
    """Measured noise of all weights coded alike over the sum that white noise's gains foretell.

    Args:
        module: the float denoiser.
        family: how its inputs nest.
        groups: sites that are torch modules; `white` gains of their members count.
        plans: how weights are rounded.
        batches: flat named inputs.
        edges: lower edges of the timestep bins.
        on_group: called after each group.

    Returns:
        float64[B] by the way of rounding.
    """
    bins = max(len(edges), 1)
    decoded: list[dict[str, Float]] = [{} for _ in plans]
    foretold = np.zeros((len(plans), bins))
    for group in groups:
        for member in group.members:
            assert member.site.module is not None
            for index, plan in enumerate(plans):
                estimate, noise = _coarse(member, plan)
                decoded[index][member.site.module] = estimate
                foretold[index] += noise
        if on_group is not None:
            on_group()
    found = {}
    for plan, weights, sums in zip(plans, decoded, foretold, strict=True):
        noise = _joint_noise(module, family, weights, batches, edges)
        factor = noise / np.maximum(sums, 1e-30)
        found[rounding_of(plan)] = np.clip(factor, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
    return found


def _coarse(member: Member, plan: WeightPlan) -> tuple[Float, Double]:
    """A site's decoded weight, and the noise that white noise's gain foretells for it."""
    with threadpool_limits(1):  # sums that threads share depend on the machine
        plan = admitted(plan, member.weight, member.rows)
        estimate = rounded(member.weight, member.rows, plan).estimate
        error = member.product(judges(member.rows), estimate - member.weight)
    return estimate, member.white_noise(error)


def _joint_noise(
    module: Any,
    family: Family,
    weights: Mapping[str, Float],
    batches: Sequence[Inputs],
    edges: Sequence[float],
) -> Double:
    """Noise-to-signal power at the output with all these weights in place: float64[B]."""
    import torch
    from torch.func import functional_call

    parts = dict(module.named_modules())
    changed = {
        f"{name}.weight": torch.from_numpy(np.ascontiguousarray(rows)).reshape(
            parts[name].weight.shape
        )
        for name, rows in weights.items()
    }
    ratios, where = [], []
    with torch.inference_mode():
        for inputs in batches:
            given = family.nest({k: torch.from_numpy(np.array(x)) for k, x in inputs.items()})
            given = {**given, "return_dict": False}
            exact = module(**given)[0].double().flatten(1)
            error = functional_call(module, changed, (), given)[0].double().flatten(1) - exact
            signal = exact.square().sum(dim=1).clamp_min(1e-30)
            ratios.append((error.square().sum(dim=1) / signal).numpy())
            where.append(bins_of(inputs, family.timestep, edges, len(exact)))
    means = mean_per_bin(np.concatenate(ratios)[:, None], np.concatenate(where), max(len(edges), 1))
    return np.asarray(means[:, 0])
