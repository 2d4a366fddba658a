"""Decisions on made-up records: what is kept, which code wins, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from segquant_trt.calibrate.statistics import Accumulator
from segquant_trt.errors import SegQuantError
from segquant_trt.plan import PlanRequest, make_plan
from segquant_trt.records import (
    ActivationScheme,
    GraphFacts,
    LinearSite,
    QuantPlan,
    Shifted,
    SitePlan,
    SiteRole,
    Symmetric,
)
from segquant_trt.records.calibration import ActivationStats, Calibration

Rows = npt.NDArray[np.float32]


def site(name: str, role: SiteRole = "body") -> LinearSite:
    return LinearSite(
        name=name,
        op="MatMul",
        module=f"module.{name}",
        role=role,
        activation=f"{name}/in",
        weight=f"{name}.weight",
        weight_layout="NK",
        bias=None,
        bias_node=None,
        output=f"{name}/out",
        in_features=6,
        out_features=4,
        kernel=(),
        groups=1,
        activation_rank=3,
    )


def stats(rows: Rows, *, bins: int = 1) -> ActivationStats:
    accumulator = Accumulator(bins=bins, rows_per_bin=16, seed=0)
    for index, part in enumerate(np.array_split(rows, bins)):
        accumulator.update(part, step_bin=index, samples=1)
    return accumulator.finish()


def centred(seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(size=(640, 6)).astype(np.float32)


def after_gelu() -> Rows:
    values = 3 * centred()
    return np.where(values > 0, values, 0.05 * np.tanh(values)).astype(np.float32)


def calibration_of(inputs: dict[str, Rows], *, bins: int = 1) -> Calibration:
    tensors = {f"{name}/in": stats(rows, bins=bins) for name, rows in inputs.items()}
    tensors |= {f"{name}/out": stats(rows[:, :4], bins=bins) for name, rows in inputs.items()}
    return Calibration(
        onnx_sha256="m",
        checkpoint_sha256="w",
        origin="trajectories",
        samples=1,
        bin_edges=(),
        tensors=tensors,
        patches={},
    )


def plan_of(
    sites: list[LinearSite], calibration: Calibration, request: PlanRequest | None = None
) -> QuantPlan:
    facts = GraphFacts(onnx_sha256="m", sites=tuple(sites), timestep_only=(), notes=())
    return make_plan(
        facts,
        calibration,
        request or PlanRequest(target="onnxruntime"),
        facts_sha256="f",
        calibration_sha256="c",
    )


def activation_of(site: SitePlan) -> ActivationScheme:
    (segment,) = site.treatment.segments
    return segment.activation


def test_the_code_with_the_smaller_error_wins() -> None:
    calibration = calibration_of({"flat": centred(), "gelu": after_gelu()})
    flat, gelu = plan_of([site("flat"), site("gelu")], calibration).sites
    assert isinstance(activation_of(gelu), Shifted)
    best, other = gelu.considered
    assert best.option == "shifted"
    assert best.sqnr_db is not None
    assert other.sqnr_db is not None
    assert best.sqnr_db > other.sqnr_db + 3  # nearly one bit
    assert {option.option for option in flat.considered} == {"symmetric", "shifted"}
    assert "dB" in gelu.why


@pytest.mark.parametrize("role", ["embedder", "modulation", "final"])
def test_delicate_roles_stay_float_unless_all_is_asked_for(role: SiteRole) -> None:
    sites = [site("body"), site("delicate", role)]
    calibration = calibration_of({"body": centred(), "delicate": centred(1)})
    kept = plan_of(sites, calibration).sites[1]
    assert kept.treatment.is_float
    assert role.split("_")[0] in kept.why
    everything = PlanRequest(target="onnxruntime", quantize_all=True)
    assert not plan_of(sites, calibration, everything).sites[1].treatment.is_float


def test_patterns_match_sites_and_modules() -> None:
    sites = [site("a"), site("b"), site("c")]
    calibration = calibration_of({name: centred() for name in "abc"})
    request = PlanRequest(target="onnxruntime", keep_float=("a", "module.b*"))
    kept = [s.treatment.is_float for s in plan_of(sites, calibration, request).sites]
    assert kept == [True, True, False]


def test_a_pattern_without_a_match_is_refused() -> None:
    request = PlanRequest(target="onnxruntime", keep_float=("nowhere*",))
    with pytest.raises(SegQuantError, match=r"nowhere\*.*matches none"):
        plan_of([site("a")], calibration_of({"a": centred()}), request)


def test_nothing_to_quantise_is_refused() -> None:
    with pytest.raises(SegQuantError, match="nothing to quantise"):
        plan_of([site("a", "final")], calibration_of({"a": centred()}))


def test_calibration_of_another_model_is_refused() -> None:
    other = replace(calibration_of({"a": centred()}), onnx_sha256="other")
    with pytest.raises(SegQuantError) as refused:
        plan_of([site("a")], other)
    assert "calibration.safetensors" in refused.value.what
    assert "facts.yaml" in refused.value.what


def test_a_site_that_was_not_calibrated_is_refused() -> None:
    with pytest.raises(SegQuantError, match="'b' reads or writes 'b/"):
        plan_of([site("a"), site("b")], calibration_of({"a": centred()}))


def test_ranges_cover_all_timestep_bins() -> None:
    rows = centred()
    rows[-10:] *= 50  # the last timestep bin
    request = PlanRequest(target="onnxruntime", range_method="amax")
    calibration = calibration_of({"a": rows}, bins=4)
    (decided,) = plan_of([site("a")], calibration, request).sites
    assert isinstance(activation_of(decided), (Symmetric, Shifted))
    reach = activation_of(decided).scale * (
        127 if isinstance(activation_of(decided), Symmetric) else 255
    )
    span = np.abs(rows).max() if isinstance(activation_of(decided), Symmetric) else np.ptp(rows)
    assert reach == pytest.approx(span, rel=1e-5)


def test_macs_are_output_elements_times_inputs_per_output() -> None:
    (decided,) = plan_of([site("a")], calibration_of({"a": centred()})).sites
    assert decided.macs_per_sample == 640 * 4 * 6


def test_an_input_that_is_always_zero_gets_a_usable_plan() -> None:
    zeros = np.zeros((8, 6), dtype=np.float32)
    (decided,) = plan_of([site("a")], calibration_of({"a": zeros})).sites
    assert isinstance(activation_of(decided), (Symmetric, Shifted))
    assert activation_of(decided).scale > 0
    assert decided.considered[0].sqnr_db is None
