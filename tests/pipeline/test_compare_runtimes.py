"""A finished run beside torch, compiled torch and both CPU runtimes, all executed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from segquant_trt.bench.rounds import Effort
from segquant_trt.pipeline.comparison.compare import ComparisonRequest, compare

pytestmark = pytest.mark.full


def test_all_baselines_of_a_cpu_answer_alike(compiled_flux: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    request = ComparisonRequest(
        subjects=(str(compiled_flux), f"float:{compiled_flux}"),
        against=("torch", "torch-compile", "openvino"),
        effort=Effort(iterations=5, duration_s=0.0, warm_up_ms=0.0),
        threads=1,
        memory=False,
    )
    found, _ = compare(request)
    assert found.reference.endswith("(torch)")
    (case,) = found.cases
    bundle, *others = [each for each in case.subjects if each.speedup is not None]
    assert 15.0 < (bundle.answer_sqnr_db or 0.0) < 70.0
    assert len(others) == 3
    # float32 in another order of sums
    assert all(each.answer_equal or (each.answer_sqnr_db or 0) > 90.0 for each in others)
    assert found.versions["torch"]
