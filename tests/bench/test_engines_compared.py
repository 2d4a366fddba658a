"""Two engines side by side through this package's runtime, on a simulated TensorRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segquant_trt.backends.tensorrt.runtime import EngineSession
from segquant_trt.bench.compare import Case, compare_case
from segquant_trt.bench.engine_subject import EngineSubject
from segquant_trt.bench.rounds import Effort
from tests.backends.tensorrt.runtime.simulated import WEIGHT, WIDTH, OnCpu, loaded, tensorrt
from tests.bench.test_torch_module import Stream
from tests.contract.tensorrt.fake import VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_subjects(version: str, tmp_path: Path) -> None:
    """Every call is one step of the events' clock, whoever makes it."""
    stream = Stream()
    subjects = []
    for name, graphs in (("plain", False), ("graphs", True)):
        accelerator = OnCpu()
        found, _ = tensorrt(accelerator, None, version=version)
        session = EngineSession(loaded(tmp_path, found), accelerator, cuda_graphs=graphs)
        stepped = session.run_tensors

        def run(inputs: object, stepped: object = stepped, ms: float = 3.0 - graphs) -> object:
            stream.now_ms += ms
            return stepped(inputs)  # type: ignore[operator]

        session.run_tensors = run  # type: ignore[method-assign, assignment]
        subjects.append(EngineSubject(name=name, session=session, device="cpu", cuda=stream))
    x = np.random.default_rng(0).standard_normal((3, WIDTH)).astype(np.float32)
    effort = Effort(iterations=7, duration_s=0.0, warm_up_ms=0.0)
    case, _ = compare_case(subjects, "plain", Case(lengths={}, inputs={"x": x}, batch=3), effort)
    reference, graphs_ = case.subjects
    assert reference.clock == graphs_.clock == "device"
    assert (reference.latency.median_ms, graphs_.latency.median_ms) == (3.0, 2.0)
    assert graphs_.speedup is not None
    assert graphs_.speedup.median == 1.5
    assert graphs_.answer_equal
    timed = subjects[0].bind({"x": x})
    timed.run()
    np.testing.assert_allclose(timed.answer(), x @ WEIGHT, rtol=1e-5)
