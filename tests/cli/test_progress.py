"""Progress is drawn for people at a terminal only."""

from __future__ import annotations

import io

import pytest

from segquant_trt.cli import progress as module
from segquant_trt.cli.progress import StderrProgress


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_bar_without_a_terminal() -> None:
    stream = io.StringIO()
    with StderrProgress(stream) as progress:
        progress.update("calibrate", 0, 10)
        progress.note("calibrate: 10 samples")
        progress.update("calibrate", 10, 10)
    assert stream.getvalue() == "calibrate: 10 samples\n"


def test_no_bar_for_short_work() -> None:
    stream = Terminal()
    with StderrProgress(stream) as progress:
        for done in range(11):
            progress.update("calibrate", done, 10)
    assert "calibrate" not in stream.getvalue()


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BAR_AFTER_SECONDS", 0.0)
    stream = Terminal()
    with StderrProgress(stream) as progress:
        progress.update("calibrate", 0, 10)
        progress.note("a default was chosen")
        progress.update("verify", 3, None)
    text = stream.getvalue()
    assert "calibrate:   0%" in text
    assert "a default was chosen\n" in text
    assert "verify: " in text
