"""All coarse weights at once, against a denoiser whose weights are replaced by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from segquant_trt.records import LinearSite, WeightPlan
from segquant_trt.score.group import Group, rounding_of
from segquant_trt.score.joint import joint_factors
from segquant_trt.score.rounding import admitted, judges, rounded
from tests.score.denoisers import FAMILY, SITES, Denoiser, inputs_of, run
from tests.score.groups import EDGES, group, member

BATCHES = [inputs_of(1, [10.0, 290.0, 300.0]), inputs_of(2, [950.0, 299.0])]
BINS = np.array([0, 0, 1, 2, 0])
ONCE = [s for s in SITES if s.name in ("mod", "conv", "out")]
NEAREST = WeightPlan(bits=4, scale_method="absmax")
SEARCHED = WeightPlan(bits=4, scale_method="mse")
OPTIMISED = WeightPlan(bits=4, rounding="gptq", scale_method="mse")


def group_of(module: Denoiser, site: LinearSite, seed: int, white: float = 1.0) -> Group:
    """The site with the module's own weight, and inputs that are made up."""
    own = module.get_submodule(site.module).weight.numpy().reshape(site.out_features, -1)
    random = np.random.default_rng(seed)
    rows = random.standard_normal((3, 31, own.shape[1])).astype(np.float32)
    made = replace(member(site, rows, seed), weight=own)
    return group([replace(made, white=white * made.white)], rows[..., : site.in_features])


def groups_of(module: Denoiser, white: float = 1.0) -> list[Group]:
    return [group_of(module, site, seed, white) for seed, site in enumerate(ONCE)]


def by_hand(groups: list[Group], plan: WeightPlan) -> np.ndarray:
    changed, module = Denoiser(), Denoiser()
    foretold = np.zeros(3)
    for found in groups:
        (own,) = found.members
        codes = rounded(own.weight, own.rows, plan).estimate
        part = changed.get_submodule(own.site.module)
        part.weight.data = torch.from_numpy(codes).reshape(part.weight.shape)
        error = judges(own.rows).astype(np.float64) @ (codes - own.weight).astype(np.float64).T
        foretold += (np.square(error).mean(axis=1) * own.white).sum(axis=1)
    ratios: list[float] = []
    for inputs in BATCHES:
        clean = run(module, inputs).double().flatten(1)
        error = run(changed, inputs).double().flatten(1) - clean
        ratios += (error.square().sum(dim=1) / clean.square().sum(dim=1)).tolist()
    noise = [np.mean(np.array(ratios)[np.equal(BINS, b)]) for b in range(3)]
    return np.array(noise) / foretold


@pytest.mark.parametrize("plan", [NEAREST, SEARCHED, OPTIMISED], ids=["nearest", "mse", "gptq"])
def test_factors_are_measured_over_foretold_noise(plan: WeightPlan) -> None:
    module = Denoiser()
    scale = float(np.median(by_hand(groups_of(module), plan)))  # factors near one are not cut
    groups = groups_of(module, scale)
    told: list[None] = []
    found = joint_factors(
        module, FAMILY, groups, [plan], BATCHES, edges=EDGES, on_group=lambda: told.append(None)
    )
    wanted = by_hand(groups, plan)
    assert np.ptp(wanted) > 0.1, "bins differ"
    np.testing.assert_allclose(found[rounding_of(plan)], wanted, rtol=1e-3)
    assert len(told) == len(groups)


def test_every_way_of_rounding_has_its_own_factor_and_none_is_beyond_tenfold() -> None:
    module = Denoiser()
    before = run(module, BATCHES[0])
    plans = [NEAREST, SEARCHED, OPTIMISED]
    quiet = joint_factors(module, FAMILY, groups_of(module, 1e-9), plans, BATCHES, edges=EDGES)
    loud = joint_factors(module, FAMILY, groups_of(module, 1e9), plans, BATCHES, edges=EDGES)
    assert set(quiet) == set(loud) == {rounding_of(plan) for plan in plans}
    for plan in plans:
        np.testing.assert_allclose(quiet[rounding_of(plan)], 10.0)
        np.testing.assert_allclose(loud[rounding_of(plan)], 0.1)
    assert torch.equal(run(module, BATCHES[0]), before), "the module is left as it was"


def test_optimised_weights_need_rows_to_judge_them_and_columns_that_fit_memory() -> None:
    blocks = replace(OPTIMISED, block=16)
    narrow, wide = np.zeros((2, 8192), np.float32), np.zeros((2, 8193), np.float32)
    one, two = np.zeros((3, 1, 1), np.float32), np.zeros((3, 2, 1), np.float32)
    assert admitted(blocks, narrow, two) is blocks
    assert (
        admitted(blocks, wide, two) == admitted(blocks, narrow, one) == replace(SEARCHED, block=16)
    )
    assert admitted(NEAREST, wide, one) is NEAREST
