"""The file that trtexec's readers expect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from segquant_trt.bench.export_times import export_times
from segquant_trt.bench.rounds import Timings
from segquant_trt.errors import SegQuantError

KEYS = [
    *("startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startComputeMs", "endComputeMs"),
    *("startD2hMs", "endD2hMs", "h2dMs", "computeMs", "d2hMs", "latencyMs"),
]


def timings(*latency_ms: float) -> Timings:
    starts = np.cumsum((0.0, *latency_ms[:-1])) + 0.25
    return Timings(clock="wall", start_ms=starts, latency_ms=np.array(latency_ms))


def test_one_subject_is_one_array_of_calls(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    assert export_times(path, {("batch 2", "run"): timings(3.0, 2.0, 4.5)}) == [path]
    calls = json.loads(path.read_text())
    assert [list(call) for call in calls] == [KEYS] * 3
    assert [call["latencyMs"] for call in calls] == [3.0, 2.0, 4.5]
    for call in calls:
        # trtexec's own relations between the keys.
        for part, name in (("H2d", "h2dMs"), ("Compute", "computeMs"), ("D2h", "d2hMs")):
            assert call[f"end{part}Ms"] - call[f"start{part}Ms"] == pytest.approx(call[name])
        assert call["latencyMs"] == call["h2dMs"] + call["computeMs"] + call["d2hMs"]
        assert call["endH2dMs"] <= call["startComputeMs"]
        assert call["endComputeMs"] <= call["startD2hMs"]
    assert calls[1]["startEnqMs"] == pytest.approx(3.25)


def test_several_have_a_file_each_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    found = {
        (case, name): timings(float(at + 1))
        for at, (case, name) in enumerate(
            (case, name)
            for case in ("batch 1", "batch 2")
            for name in ("a/b", "a b", "run (torch)")
        )
    }
    written = export_times(path, found)
    assert len(set(written)) == 6
    assert all(target.parent == tmp_path and target.suffix == ".json" for target in written)
    values = [json.loads(target.read_text())[0]["latencyMs"] for target in written]
    assert values == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert written[2].name == "times.run-torch-batch-1.json"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SegQuantError, match=r"writing .* failed"):
        export_times(tmp_path / "file" / "times.json", {("case", "run"): timings(1.0)})
