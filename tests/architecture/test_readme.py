"""The README's commands do what it says, on a fresh copy in a fresh environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, tracked_files

BLOCK = re.compile(r"^<!-- run: (\w+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT_SECONDS = 600


def readme_commands() -> dict[str, str]:
    return dict(BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")))


def test_readme_marks_its_two_commands() -> None:
    commands = readme_commands()
    assert set(commands) == {"quickstart", "tests"}
    assert "segquant-trt compile zoo:" in commands["quickstart"]
    assert re.search(r"\bpytest\b", commands["tests"])


@pytest.mark.full
@pytest.mark.timeout(2 * LIMIT_SECONDS)
def test_quickstart_on_a_fresh_copy(tmp_path: Path) -> None:
    for path in tracked_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    start = time.monotonic()
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", readme_commands()["quickstart"]],
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    assert time.monotonic() - start < LIMIT_SECONDS
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
    assert (tmp_path / "run" / "bundle" / "manifest.json").is_file()
