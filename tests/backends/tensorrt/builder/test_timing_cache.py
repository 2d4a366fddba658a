"""The timing cache: one per TensorRT, GPU and driver; kept, shared, never in the way."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segquant_trt.backends.tensorrt.builder.build import build_engine
from segquant_trt.backends.tensorrt.builder.timing_cache import timing_cache_path
from segquant_trt.errors import SegQuantError
from tests.contract.tensorrt.fake import VERSIONS
from tests.contract.tensorrt.scenario import host_memory
from tests.contract.tensorrt.test_build_flow import Notes
from tests.contract.tensorrt.workbench import GPU, bench, device, request

ROOT = Path(__file__).parents[4]
NEWEST = VERSIONS[-1]


def test_every_version_gpu_and_driver_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGQUANT_TRT_CACHE", "/somewhere")
    path = timing_cache_path("11.4.0.106", GPU)
    assert path == Path(
        "/somewhere/tensorrt/tensorrt-11.4.0.106_NVIDIA-H100-PCIe_sm9.0_580.65.06.timing"
    )
    others = [
        timing_cache_path("10.16.1.11", GPU),
        timing_cache_path("11.4.0.106", device(name="NVIDIA/H200")),
        timing_cache_path("11.4.0.106", device(compute_capability=(10, 0))),
        timing_cache_path("11.4.0.106", device(driver="590.1")),
        timing_cache_path("11.4.0.106", device(driver="")),
    ]
    assert len({path, *others}) == 6
    assert all(each.parent == path.parent for each in others)


def cached(version: str, answers: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """A TensorRT whose cache, after the build, is what it began with and one more timing."""

    def create(this: Any, serialized_timing_cache: bytes) -> Any:
        made = script.answers["world"].new("ITimingCache")
        made.__dict__["data"] = bytes(serialized_timing_cache)
        return made

    def combine(this: Any, input_cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        new = set(input_cache.__dict__["data"]) - set(this.__dict__["data"])
        this.__dict__["data"] += bytes(sorted(new))
        return True

    def serialize(this: Any) -> Any:
        return host_memory(script.answers["world"], this.__dict__["data"] + b"N")

    def attach(this: Any, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        this.__dict__["cache"] = cache
        return True

    found, script = bench(version)
    script.answers |= {
        "IBuilderConfig.create_timing_cache": create,
        "IBuilderConfig.set_timing_cache": attach,
        "IBuilderConfig.get_timing_cache": lambda this: this.__dict__.get("cache"),
        "ITimingCache.combine": combine,
        "ITimingCache.serialize": serialize,
    } | (answers or {})
    return found, script


@pytest.mark.parametrize("version", VERSIONS)
def test_the_cache_is_read_and_written(version: str, tmp_path: Path) -> None:
    wanted = request(tmp_path)
    path = wanted.options.timing_cache
    assert path is not None
    found, script = cached(version)
    build_engine(wanted, tensorrt=found)
    assert path.read_bytes() == b"N"
    found, script = cached(version)
    build_engine(wanted, tensorrt=found)
    given = script.of("IBuilderConfig.create_timing_cache")[0]
    assert given == {"serialized_timing_cache": b"N"}
    assert path.read_bytes() == b"NN"


def test_what_another_build_saved_meanwhile_is_not_lost(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    path = wanted.options.timing_cache
    assert path is not None
    found, script = cached(NEWEST)
    build = script.answers["Builder.build_serialized_network"]

    def meanwhile(this: Any, network: Any, config: Any) -> Any:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"OTHER")
        return build(this, network, config)

    script.answers["Builder.build_serialized_network"] = meanwhile
    build_engine(wanted, tensorrt=found)
    assert set(path.read_bytes()) == set(b"OTHERN")


def test_one_build_saves_at_a_time(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    path = wanted.options.timing_cache
    assert path is not None
    found, script = cached(NEWEST)
    serialize = script.answers["ITimingCache.serialize"]
    held = []

    def look(this: Any) -> Any:
        with path.with_name(path.name + ".lock").open("wb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(True)
        return serialize(this)

    script.answers["ITimingCache.serialize"] = look
    build_engine(wanted, tensorrt=found)
    assert held == [True]


def test_a_cache_in_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wanted = request(tmp_path, timing_cache=tmp_path / "file" / "t.timing")
    found, _ = cached(NEWEST)
    with pytest.raises(SegQuantError, match=r"t\.timing"):
        build_engine(wanted, tensorrt=found)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_of_another_gpu_or_damaged_is_replaced(damaged: bool, tmp_path: Path) -> None:
    wanted = request(tmp_path)
    path = wanted.options.timing_cache
    assert path is not None
    path.parent.mkdir()
    path.write_bytes(b"foreign")

    def attach(this: Any, cache: Any, ignore_mismatch: bool) -> bool:
        this.__dict__["cache"] = cache
        return cache.__dict__["data"] == b""

    found, script = cached(NEWEST, {"IBuilderConfig.set_timing_cache": attach})
    create = script.answers["IBuilderConfig.create_timing_cache"]

    def refuse(this: Any, serialized_timing_cache: bytes) -> Any:
        if damaged and serialized_timing_cache == b"foreign":
            return None
        return create(this, serialized_timing_cache)

    script.answers["IBuilderConfig.create_timing_cache"] = refuse
    notes = Notes()
    build_engine(wanted, tensorrt=found, progress=notes)
    assert any("is damaged, or of another GPU" in text for text in notes.notes)


def test_no_cache_at_all(tmp_path: Path) -> None:
    wanted = request(tmp_path, use_timing_cache=False)
    found, script = cached(NEWEST)
    build_engine(wanted, tensorrt=found)
    assert not wanted.options.timing_cache.exists()
    assert [each["flag"].name for each in script.of("IBuilderConfig.set_flag")] == [
        "DISABLE_TIMING_CACHE"
    ]


def test_a_build_that_fails_keeps_what_it_learned(tmp_path: Path) -> None:
    wanted = request(tmp_path)
    found, _ = cached(NEWEST, {"Builder.build_serialized_network": None})
    with pytest.raises(SegQuantError, match="cannot build"):
        build_engine(wanted, tensorrt=found)
    assert wanted.options.timing_cache.read_bytes() == b"N"


INTERRUPTED = """
import sys, time
from pathlib import Path
from segquant_trt.backends.tensorrt.builder.build import build_engine
from tests.backends.tensorrt.builder.test_timing_cache import cached
from tests.contract.tensorrt.workbench import request

def serialize(this, network, config):
    config.progress_monitor.phase_start("tactics", None, 10000)
    for step in range(1200):
        time.sleep(0.05)  # as C++ would: the main thread is free to hear the signal
        if step == 1:
            print("building", flush=True)
        if not config.progress_monitor.step_complete("tactics", step):
            return None
    raise SystemExit("was never told to stop")

found, script = cached("11.4.0.106", {"Builder.build_serialized_network": serialize})
try:
    build_engine(request(Path(sys.argv[1])), tensorrt=found)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_keeps_the_timings(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "interrupted\n"), errors
    assert (tmp_path / "cache" / "t.timing").read_bytes() == b"N"
    assert not (tmp_path / "small.engine").exists()
