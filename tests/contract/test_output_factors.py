"""Convolutions with row factors whose outputs are requantised: from calibration to the kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.backends import backend_for
from segquant_trt.plan import PlanRequest
from segquant_trt.records import WeightPlan
from segquant_trt.records.scores import OptionScore, SiteScore
from segquant_trt.schemes import output_encoding
from segquant_trt.score.group import Group, Member
from segquant_trt.score.options import OptionSearch
from tests.score.groups import EDGES, group, stats
from tests.small_graphs import Array, facts_of
from tests.treatments import Case, convolution, convolved, patches, row_factors, written

SAMPLES, CHANNELS, OUTPUTS = 4, 19, 11
BIAS = np.linspace(-3.0, 5.0, OUTPUTS).astype(np.float32)
KINDS = {
    "3x3 per_step": (3, 1, "per_step"),
    "strided per_step": (3, 2, "per_step"),
    "1x1 per_step": (1, 1, "per_step"),
    "1x1 per_token": (1, 1, "per_token"),
    "strided 1x1 per_token": (1, 2, "per_token"),
}


def example(kernel: int) -> tuple[Array, Array, Array]:
    """Images that shrink from step to step, their timesteps in bins, and a weight."""
    random = np.random.default_rng(kernel)
    x = random.standard_normal((len(EDGES) * SAMPLES, CHANNELS, 7, 9)) ** 3
    step = np.repeat(np.asarray(EDGES), SAMPLES) + 1.0
    x *= np.exp(-step / 150.0)[:, None, None, None]
    weight = 0.2 * random.standard_normal((OUTPUTS, CHANNELS, kernel, kernel))
    weight *= np.geomspace(0.1, 3.0, OUTPUTS)[:, None, None, None]
    return x.astype(np.float32), step.astype(np.float32), weight.astype(np.float32)


def calibrated(model: Path, x: Array, weight: Array, stride: int) -> Group:
    """All that was seen, one row per pixel."""
    (site,) = facts_of(model).sites
    bins = len(EDGES)
    rows = patches(x, weight.shape[2], stride).reshape(bins, -1, weight[0].size)
    pixels = np.moveaxis(x, 1, 3).reshape(bins, -1, CHANNELS)
    y = rows @ weight.reshape(OUTPUTS, -1).T + BIAS
    gains = np.exp(np.random.default_rng(5).normal(-3, 1.0, (bins, OUTPUTS)))
    own = Member(
        site=site, rows=rows, weight=weight.reshape(OUTPUTS, -1), bias=BIAS,
        gains=gains, white=gains, output=stats(y),
    )  # fmt: skip
    return group([own], pixels)


def searched(found: Group, kind: str) -> tuple[OptionScore, dict[str, Array]]:
    search = OptionSearch(weights=(WeightPlan(scale_method="absmax"),), method="amax")
    (options,) = search.options(found).values()
    return next(o for o in options if o.treatment.label.endswith(f"/{kind}")), search.arrays


@pytest.mark.parametrize("by_channel", [True, False], ids=["steps per channel", "one step"])
@pytest.mark.parametrize("name", list(KINDS))
def test_outputs_over_a_factor_are_rounded_as_scored(
    tmp_path: Path, name: str, by_channel: bool
) -> None:
    kernel, stride, kind = KINDS[name]
    x, timestep, weight = example(kernel)
    model = convolution(tmp_path, weight, BIAS, stride=stride, groups=1)
    found = calibrated(model, x, weight, stride)
    option, arrays = searched(found, kind)
    assert option.output is not None
    given = Case(treatment=option.treatment, arrays=arrays)
    out = written(
        tmp_path, model, "onnxruntime", given, output_range=option.output.range,
        output_channels=option.output.channels if by_channel else None,
    )  # fmt: skip
    backend = backend_for("onnxruntime")
    feeds = {"x": x, "timestep": timestep}
    assert backend.integer_sites(out, ["conv"], example=feeds)["conv"].integer
    y = backend.open(out, threads=1).run(feeds)["y"]
    exact = convolved(x, weight, given, timestep, stride, 1) + BIAS[:, None, None]
    error = y - exact
    factors = row_factors(x, given, timestep)[:, :, ::stride, ::stride]
    low, high = arrays[option.output.channels]
    steps = (high - low)[:, None, None] / 255.0
    steps = steps if by_channel else output_encoding(*option.output.range).scale
    # Half a step, what float32 adds, and what coded inputs add to values at the range's end.
    rows = patches(x, kernel, stride)
    plain = rows.reshape(*rows.shape[:3], -1) @ weight.reshape(OUTPUTS, -1).T + BIAS
    own = np.abs(np.moveaxis(plain, 3, 1) - exact)
    assert (np.abs(error) <= 0.51 * steps * factors + own + 1e-5 * np.abs(exact).max()).all()
    squares = np.square(error).reshape(len(EDGES), SAMPLES, OUTPUTS, -1).mean(axis=(1, 3))
    noise = option.output.channels_noise if by_channel else option.output.range_noise
    np.testing.assert_allclose((squares * found.members[0].white).sum(axis=1), noise, rtol=0.3)


@pytest.mark.parametrize("kind", ["per_step", "per_token"])
def test_such_convolutions_are_planned_with_ranges_of_their_own(tmp_path: Path, kind: str) -> None:
    x, _, weight = example(1)
    model = convolution(tmp_path, weight, BIAS, stride=1, groups=1)
    found = calibrated(model, x, weight, 1)
    option, _ = searched(found, kind)
    (site,) = facts_of(model).sites
    score = SiteScore(
        site=site.name,
        group=site.activation,
        rows_per_sample=63,
        amplification="backward",
        output_range=(-1.0, 1.0),
        output_channels="o-own",
        range_noise=(1.0,) * 3,
        channels_noise=(1.0,) * 3,
        options=(option,),
    )
    request = PlanRequest(target="onnxruntime")
    assert option.output is not None
    assert request.refusal(site, score, option) is None
    assert request.output_codes(site, score, option) == (
        option.output.range, option.output.channels
    )  # fmt: skip
    assert request.output_noise(score, option) == option.output.channels_noise
    published = replace(request, preset="tfmq")
    assert published.output_codes(site, score, option) == (option.output.range, None)
    assert published.output_noise(score, option) == option.output.range_noise
    unknown = replace(option, output=None)
    assert "over this row factor" in (request.refusal(site, score, unknown) or "")
    assert replace(request, target="openvino").refusal(site, score, unknown) is None
