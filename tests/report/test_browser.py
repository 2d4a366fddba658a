"""The report in a real browser: sorting, filtering, no request, no console message."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.runs import Run, bare_run, photo_images, zoo_run

pytestmark = pytest.mark.full

# Drives the untouched report in a frame and leaves what it saw in this page.
HARNESS = """<!doctype html><title>harness</title><pre id="seen"></pre>
<iframe id="frame" src="report.html" width="1280" height="900"></iframe>
<script>
const frame = document.getElementById("frame");
frame.addEventListener("load", () => {
  const page = frame.contentDocument;
  const heads = [...page.querySelectorAll("#site-table th")];
  const column = (key) => heads.findIndex((head) => head.dataset.key === key);
  const cells = (key, attribute) => [...page.querySelectorAll("#site-table tbody tr")]
    .filter((row) => !row.hidden)
    .map((row) => row.cells[column(key)])
    .map((cell) => attribute ? cell.getAttribute(attribute)
      : (cell.querySelector("span") ?? cell).textContent.trim());
  const sorted = (key, attribute) => {
    heads[column(key)].querySelector("button").click();
    return { direction: heads[column(key)].getAttribute("aria-sort"), cells: cells(key, attribute),
             sorted_heads: heads.filter((head) => head.hasAttribute("aria-sort")).length };
  };
  const enter = (id, value, event) => {
    page.getElementById(id).value = value;
    page.getElementById(id).dispatchEvent(new Event(event, { bubbles: true }));
    return { shown: page.getElementById("shown").textContent, cells: cells("module") };
  };
  const seen = {
    buttons: heads.map((head) => head.querySelector("button").tabIndex),
    up: sorted("error", "data-value"), down: sorted("error", "data-value"),
    names: sorted("module"), back: sorted("index", "data-value"),
    found: enter("find", "FF.net.2 gelu", "input"), cleared: enter("find", "", "input"),
    floats: enter("scheme", "float", "change"),
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((e) => e.name),
    wider_than_window: page.documentElement.scrollWidth > frame.clientWidth,
    images: [...page.images].every((image) => image.complete && image.naturalWidth > 0),
  };
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"""


def chromium(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = shutil.which("chromium") or shutil.which("chromium-browser")
    if command is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    return subprocess.run(
        [command, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-background-networking", "--no-first-run", "--enable-logging=stderr",
         "--allow-file-access-from-files", "--virtual-time-budget=5000", *arguments],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


def console(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "CONSOLE" in line]


def drive(run: Run, folder: Path) -> tuple[dict[str, Any], list[str]]:
    run.write(folder / "report.html")
    (folder / "harness.html").write_text(HARNESS)
    result = chromium("--dump-dom", (folder / "harness.html").as_uri())
    found = re.search(r'<pre id="seen">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found is not None
    assert found[1], f"the harness saw nothing: {console(result.stderr)}"
    return json.loads(html.unescape(found[1])), console(result.stderr)


def test_console_messages_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<script>console.error('seen'); missing()</script>")
    messages = console(chromium("--dump-dom", page.as_uri()).stderr)
    assert any("seen" in line for line in messages)
    assert any("missing is not defined" in line for line in messages)


def test_sorting_and_filtering(tmp_path: Path) -> None:
    run = zoo_run(118)
    seen, messages = drive(run, tmp_path)
    assert messages == []
    assert [name for name in seen["requests"] if not name.startswith("data:")] == []
    assert seen["images"] is True
    assert seen["wider_than_window"] is False
    assert seen["buttons"] == [0] * 7

    errors = sorted(error.sqnr_db for error in run.quality.site_errors)
    missing = [""] * (len(run.plan.sites) - len(errors))
    for key, direction, expected in (
        ("up", "ascending", errors),
        ("down", "descending", errors[::-1]),
    ):
        assert seen[key]["direction"] == direction
        assert seen[key]["sorted_heads"] == 1
        count = len(expected)
        assert [float(cell) for cell in seen[key]["cells"][:count]] == expected
        assert seen[key]["cells"][count:] == missing

    blocks = [tuple(map(int, re.findall(r"\d+", name)[:2])) for name in seen["names"]["cells"]]
    assert blocks == sorted(blocks), "numbers in names sort as numbers"
    assert [int(cell) for cell in seen["back"]["cells"]] == list(range(1, 119))

    gelu = [s.module for s in run.plan.sites if "GELU" in s.why and "ff.net.2" in str(s.module)]
    assert seen["found"]["cells"] == gelu
    assert seen["found"]["shown"] == f"{len(gelu)} of 118 sites"
    assert seen["cleared"]["shown"] == "118 sites"
    assert seen["floats"]["shown"] == "2 of 118 sites"


@pytest.mark.parametrize("name", ["bare", "large"])
def test_other_inputs_load_without_a_message(name: str, tmp_path: Path) -> None:
    large = replace(zoo_run(750), images=photo_images(8, 512))
    seen, messages = drive(bare_run() if name == "bare" else large, tmp_path)
    assert messages == []
    assert [request for request in seen["requests"] if not request.startswith("data:")] == []
    assert len(seen["back"]["cells"]) == (9 if name == "bare" else 750)


@pytest.mark.parametrize(("scheme", "light"), [("light", True), ("dark", False)])
def test_screenshot_follows_the_colour_scheme(scheme: str, light: bool, tmp_path: Path) -> None:
    from PIL import Image

    zoo_run().write(tmp_path / "report.html")
    picture = tmp_path / f"{scheme}.png"
    chromium(
        f"--blink-settings=preferredColorScheme={1 if light else 0}",
        "--window-size=1280,2600",
        f"--screenshot={picture}",
        (tmp_path / "report.html").as_uri(),
    )
    pixels = np.asarray(Image.open(picture).convert("L"), dtype=np.float64)
    assert pixels.shape == (2600, 1280)
    assert (np.median(pixels) > 200) == light
    # Images, charts and text leave no blank page.
    assert (pixels.std(axis=1) > 10).mean() > 0.3
