"""The installed package, and the log that a process shares."""

from __future__ import annotations

import io
import sys
import threading
import types
from importlib import metadata
from pathlib import Path

import pytest

from segquant_trt.backends.tensorrt import installed as module
from segquant_trt.backends.tensorrt.installed import (
    Log,
    check_version,
    cuda_major,
    open_log,
    tensorrt_module,
    version_of,
)
from segquant_trt.errors import MissingDependencyError, SegQuantError
from tests.contract.tensorrt.fake import VERSIONS, fake_tensorrt


@pytest.mark.parametrize("version", ["10.8.0.43", "8.6.1", "12.0.0"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(SegQuantError, match=f"TensorRT {version} is installed; .* 10.9 to 11.x"):
        check_version(version)


def test_known_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in VERSIONS:
        check_version(version)
        fake, _ = fake_tensorrt(version)
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        assert tensorrt_module() is fake
    assert version_of("10.13.3.9.post1") == (10, 13, 3, 9)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"segquant-trt\[tensorrt\]"):
        tensorrt_module()


def test_libraries_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(SegQuantError, match="libraries cannot be loaded: libnvinfer"):
        tensorrt_module()


@pytest.mark.parametrize(
    ("names", "major"),
    [
        (["numpy", "tensorrt-cu13-bindings"], 13),
        (["tensorrt_cu12"], 12),
        (["tensorrt", "tensorrt-cu12-libs"], 12),
        (["tensorrt", "tensorrt-rtx-cu13-libs"], None),
        ([], None),
    ],
)
def test_cuda_generation(
    names: list[str], major: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [types.SimpleNamespace(metadata={"Name": name}) for name in names]
    monkeypatch.setattr(metadata, "distributions", lambda: found)
    assert cuda_major() == major


def test_the_device_is_asked_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, script = fake_tensorrt(VERSIONS[-1])
    monkeypatch.setitem(sys.modules, "tensorrt", fake)

    def no_gpu(index: int) -> None:
        raise SegQuantError("no GPU can be used: none", hint="buy one")

    monkeypatch.setattr(module, "find_device", no_gpu)
    with pytest.raises(SegQuantError, match="no GPU"):
        module.installed()
    assert script.names() == []


def test_a_log_keeps_errors_and_warnings_and_writes_all() -> None:
    log = Log(stream=io.StringIO())
    for severity, text in ((0, "fatal"), (1, "bad"), (2, "odd"), (2, "odd"), (3, "i"), (4, "v")):
        log.write(severity, text)
    assert list(log.errors) == ["fatal", "bad"]
    assert log.warnings == ["odd"]
    assert log.stream is not None
    lines = log.stream.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == ["[F] fatal", "[E] bad", "[W] odd", "[W] odd", "[I] i", "[V] v"]
    assert log.reason() == "fatal; bad"
    log.clear()
    assert log.reason() == "TensorRT gave no reason"


def test_a_log_does_not_grow_without_end() -> None:
    log = Log()
    for index in range(1000):
        log.write(1, f"e{index}")
        log.write(2, f"w{index}")
    assert len(log.errors) == len(log.warnings) == 100
    assert log.warnings[-1] == "w999"


def test_a_log_is_written_from_many_threads_and_after_its_file_was_closed() -> None:
    log = Log(stream=io.StringIO())
    threads = [
        threading.Thread(target=lambda: [log.write(4, "x" * 99) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.stream is not None
    lines = log.stream.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == ["[V] " + "x" * 99] * 800
    log.stream.close()
    log.write(0, "late")
    assert "late" in log.errors


def test_one_logger_for_the_process() -> None:
    fake, _ = fake_tensorrt(VERSIONS[-1])
    log = Log()
    logger = log.logger(fake)
    assert log.logger(fake) is logger
    logger.log(fake.ILogger.Severity.WARNING, "careful")
    assert log.warnings == ["careful"]


def test_a_folder_for_the_log_is_made(tmp_path: Path) -> None:
    with open_log(tmp_path / "a" / "b.txt") as stream:
        stream.write("x")
    assert (tmp_path / "a" / "b.txt").read_text() == "x"
