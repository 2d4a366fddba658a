"""Every treatment on every backend: the numbers of the reference, in integers.

Weights use all codes, inputs sit near the middle of the scheme's codes after their divisor and
factor, so that no order of roundings can move a code.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segquant_trt.backends import CPU_BACKENDS, Backend
from segquant_trt.records import GraphFacts, KeepFloat, Static
from segquant_trt.rewrite import rewrite
from segquant_trt.schemes import output_encoding, site_output
from tests.small_graphs import Array, facts_of, full_range_weight, plan_of
from tests.treatments import (
    CHANNELS,
    CONVOLUTIONS,
    FURTHER,
    LAYOUTS,
    ON_CONVOLUTIONS,
    UNIT,
    WHOLE,
    Case,
    convolution,
    convolved,
    inputs_of,
    linear,
    row_factors,
)

FLOAT32_ROUNDING = 2e-6
backends = pytest.mark.parametrize("backend", CPU_BACKENDS, ids=lambda backend: backend.target)


def run(
    folder: Path, backend: Backend, model: Path, case: Case, feeds: dict[str, Array], **site: Any
) -> Array:
    """The output of a graph whose sites are all treated as `case` says."""
    facts = facts_of(model)
    plan = plan_of(facts, backend.target, lambda _: KeepFloat())
    sites = tuple(replace(own, treatment=case.treatment, **site) for own in plan.sites)
    return execute(folder, backend, model, facts, replace(plan, sites=sites), case, feeds)


def execute(
    folder: Path, backend: Backend, model: Path, facts: GraphFacts, plan: Any, case: Case,
    feeds: dict[str, Array],
) -> Array:  # fmt: skip
    out = folder / "quantized.onnx"
    rewrite(model, model.parent, facts, plan, out, arrays=case.arrays, timestep="timestep")
    if case.treatment.is_integer:
        names = [site.name for site in facts.sites]
        proofs = backend.integer_sites(out, names, example=feeds)
        assert {name: proof.kernel for name, proof in proofs.items() if not proof.integer} == {}
    return backend.open(out, threads=1).run(feeds)["y"]


def assert_close(found: Array, wanted: Array, tolerance: float = FLOAT32_ROUNDING) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@backends
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("name", [*WHOLE, *FURTHER])
def test_linear(tmp_path: Path, backend: Backend, name: str, layout: str) -> None:
    given, lead = {**WHOLE, **FURTHER}[name], LAYOUTS[layout]
    weight = full_range_weight((24, CHANNELS), 1)
    bias = np.random.default_rng(2).standard_normal(24).astype(np.float32)
    with_bias = None if layout == "rank 4" else bias
    model = linear(tmp_path, weight, with_bias, gemm=layout == "gemm", rank=len(lead) + 1)
    timestep = np.array([-3.0, 250.0, 999.0, 499.9, 0.0, 700.0][: lead[0]], dtype=np.float32)
    x = inputs_of(given, lead, timestep, 3)
    found = run(tmp_path, backend, model, given, {"x": x, "timestep": timestep})
    rows = x.reshape(-1, CHANNELS)
    steps = np.repeat(timestep, len(rows) // len(timestep))
    wanted = site_output(rows, weight, given.treatment, given.arrays, with_bias, steps)
    assert_close(found, wanted.reshape(*lead, 24))


def offered(backend: Backend, name: str, kernel: int, groups: int) -> bool:
    two = "dual" in name or "split" in name
    allowed = not two or not backend.placement.requantize_conv_output
    plain = groups == 1 or not ("split" in name or name == "smoothed")
    return allowed and plain and (name != "per_token" or kernel == 1)


CONVOLUTION_CASES = [
    pytest.param(backend, shape, name, id=f"{backend.target}-{shape}-{name}")
    for backend in CPU_BACKENDS
    for shape, given in CONVOLUTIONS.items()
    for name in ON_CONVOLUTIONS
    if offered(backend, name, given["kernel"], given.get("groups", 1))
]


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("backend", "shape", "name"), CONVOLUTION_CASES)
def test_convolution(tmp_path: Path, backend: Backend, shape: str, name: str, bias: bool) -> None:
    given = {"stride": 1, "groups": 1, "outputs": 24, **CONVOLUTIONS[shape]}
    given_case, kernel = ON_CONVOLUTIONS[name], given["kernel"]
    dims = (given["outputs"], CHANNELS // given["groups"], kernel, kernel)
    weight = full_range_weight(dims, 4)
    shift = np.random.default_rng(5).standard_normal(given["outputs"]).astype(np.float32)
    model = convolution(
        tmp_path, weight, shift if bias else None, stride=given["stride"], groups=given["groups"]
    )
    timestep = np.array([499.0, 500.0], dtype=np.float32)
    x = np.moveaxis(inputs_of(given_case, (2, 7, 6), timestep, 6), 3, 1).copy()
    wanted = convolved(x, weight, given_case, timestep, given["stride"], given["groups"])
    factor = row_factors(x, given_case, timestep)
    wanted_bias = shift[:, None, None] if bias else np.float32(0.0)
    late = not isinstance(given_case.treatment.segments[0].factor, Static)
    coded = wanted / factor if late else wanted + wanted_bias
    span = (float(coded.min()), float(coded.max()))
    feeds = {"x": x, "timestep": timestep}
    found = run(tmp_path, backend, model, given_case, feeds, output_range=span)
    if backend.placement.requantize_conv_output:
        step = output_encoding(*span).scale * (factor if late else np.float32(1.0))
        unit = 0.0  # of the int32 bias
        if bias and not late:
            coarsest = np.abs(weight).max() / (2 ** (given_case.treatment.weight.bits - 1) - 1)
            unit = UNIT * coarsest
        assert (np.abs(found - wanted - wanted_bias) <= step * (0.5 + 1e-3) + unit / 2).all()
    else:
        assert_close(found, wanted + wanted_bias)
