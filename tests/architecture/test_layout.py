"""Names, sizes and places of files."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGE, ROOT, package_modules, parsed, tracked_files

ROOT_ENTRIES = {
    "pyproject.toml", "segquant_trt", "plugins", "tests", "benchmarks", "docker", "README.md",
    "LICENSE", "CHANGELOG.md",
}  # fmt: skip
MODULES = {"__init__.py", "errors.py", "py.typed"}
PACKAGES = {
    "records", "graph", "schemes", "models", "backends", "export", "calibrate", "analyze", "score",
    "plan", "rewrite", "build", "verify", "bench", "report", "serve", "package", "cli", "pipeline",
}  # fmt: skip
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "stuff", "tools"}
SOURCES = {".py", ".cu", ".cuh", ".cpp", ".h", ".sh", ".js", ".css", ".j2"}
TEXTS = SOURCES | {".toml", ".yaml", ".yml", ".json", ".md", ".txt", ".cfg", ".Dockerfile", ""}
MAX_LINES = 400
MAX_TREE_BYTES = 20 * 2**20
# Places that exist on one machine only; spelled so that this file does not match itself.
FOREIGN = re.compile(r"/(?:work|root)/|/opt/(?:pypi|wheels)|shared/" + r"design|/home/\w+/")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_root_holds_what_the_architecture_names() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    unexpected = {name for name in top if not name.startswith(".")} - ROOT_ENTRIES
    assert not unexpected


def test_package_root_holds_what_the_architecture_names() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert {path.name for path in entries if path.is_file()} <= MODULES
    assert {path.name for path in entries if path.is_dir()} <= PACKAGES


def test_no_vague_names() -> None:
    vague = [relative(p) for p in tracked_files() if VAGUE & {p.stem, *p.relative_to(ROOT).parts}]
    assert not vague


def test_no_source_file_is_long() -> None:
    lengths = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked_files()
        if path.suffix in SOURCES
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_functions_are_mostly_short() -> None:
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in package_modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno
    ]
    assert statistics.quantiles(lengths, n=10)[-1] < 40


def test_tracked_tree_is_small() -> None:
    assert sum(path.stat().st_size for path in tracked_files()) < MAX_TREE_BYTES


@pytest.mark.parametrize("line", ["open('/work" + "/x')", "cd /home" + "/me/x"])
def test_foreign_paths_are_recognised(line: str) -> None:
    assert FOREIGN.search(line)


def test_no_file_names_a_place_of_one_machine() -> None:
    found = [
        f"{relative(path)}:{number}"
        for path in tracked_files()
        if path.suffix in TEXTS
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if FOREIGN.search(line)
    ]
    assert not found
