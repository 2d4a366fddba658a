"""A bundle for a GPU that was not there: figures of speed are absent, and said to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from segquant_trt.records import Benchmark
from segquant_trt.records.codec import to_plain
from segquant_trt.records.files import atomic_write_json
from segquant_trt.report.figures import latency_bars
from segquant_trt.report.inspect import describe

WHY = "tensorrt-rtx needs a GPU, and none was used"


@pytest.fixture
def unmeasured() -> Benchmark:
    return Benchmark(
        bundle_manifest_sha256="0" * 64,
        latency_batch=2,
        shapes={},
        latency_float=None,
        latency_quantized=None,
        speedup_median=None,
        speedup_low=None,
        speedup_high=None,
        peak_memory_bytes_float=None,
        peak_memory_bytes_quantized=None,
        size_bytes_float=400,
        size_bytes_quantized=100,
        hardware={},
        versions={},
        not_measured=WHY,
    )


def test_nothing_is_drawn(unmeasured: Benchmark) -> None:
    assert latency_bars(unmeasured) == ()


def test_inspect_says_why(unmeasured: Benchmark, tmp_path: Path) -> None:
    atomic_write_json(tmp_path / "benchmark.json", to_plain(unmeasured))
    told = describe(tmp_path / "benchmark.json").as_dict()
    assert told["properties"]["not measured"] == WHY
    assert [row["median ms"] for row in told["tables"]["float and quantised"]] == [None, None]
    assert [row["size"] for row in told["tables"]["float and quantised"]] == [400, 100]


def test_measured_ones_say_nothing(unmeasured: Benchmark, tmp_path: Path) -> None:
    measured = replace(unmeasured, speedup_median=1.0, not_measured=None)
    atomic_write_json(tmp_path / "benchmark.json", to_plain(measured))
    assert describe(tmp_path / "benchmark.json").as_dict()["properties"]["not measured"] is None
