"""What ONNX Runtime's profile says of single nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segquant_trt.backends.onnxruntime import ProfilingSession
from segquant_trt.bench.kernels import kernel_times, summed
from segquant_trt.errors import SegQuantError
from tests.bundles import WIDTH, make_bundle


def event(name: str, op: str, microseconds: float, cat: str = "Node") -> dict[str, object]:
    return {"cat": cat, "name": name, "dur": microseconds, "args": {"op_name": op}}


def test_times_are_medians_after_the_first_call_and_shares_of_all_nodes() -> None:
    events = [
        event("model_run", "", 9e6, cat="Session"),
        event("a_fence_before", "MatMul", 7e5),
        *(event("a_kernel_time", "MatMul", dur) for dur in (9000.0, 100.0, 300.0, 200.0)),
        *(event("b_kernel_time", "Add", dur) for dur in (9000.0, 600.0, 600.0, 600.0)),
        *(event("c_kernel_time", "Mul", dur) for dur in (9000.0, 200.0, 200.0, 200.0)),
    ]
    first, second = summed(events, top=2)
    assert (first.name, first.op, first.ms_per_call, first.share) == ("b", "Add", 0.6, 0.6)
    assert (second.name, second.ms_per_call, second.share) == ("a", 0.2, 0.2)


def test_a_real_profile_names_the_integer_product(tmp_path: Path) -> None:
    bundle, _ = make_bundle(tmp_path)
    session = ProfilingSession(bundle / "model.onnx", bundle, tmp_path / "profile", threads=1)
    inputs = {
        "x": np.ones((2, 8, WIDTH), dtype=np.float32),
        "e": np.ones((2, WIDTH), dtype=np.float32),
    }
    for _ in range(4):
        session.run(inputs)
    found = kernel_times(session.finish(), top=50)
    assert "MatMulIntegerToFloat" in {kernel.op for kernel in found}
    assert sum(kernel.share for kernel in found) == pytest.approx(1.0)
    assert [kernel.ms_per_call for kernel in found] == sorted(
        (kernel.ms_per_call for kernel in found), reverse=True
    )


@pytest.mark.parametrize("content", [None, "", "[{"])
def test_what_is_no_profile_is_an_error(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SegQuantError, match="no readable profile"):
        kernel_times(path, top=3)
