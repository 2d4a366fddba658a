"""What every module of the package keeps to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import PACKAGE, package_modules, parsed, public_definitions

MODULES = package_modules()
NAMES = [path.relative_to(PACKAGE).as_posix() for path in MODULES]


def error_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name == "SegQuantError":
                yield node


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body, "the module has none"
    bare = [node.name for node in public_definitions(path) if not ast.get_docstring(node)]
    assert not bare


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_error_says_what_to_do_next(path: Path) -> None:
    for call in error_calls(parsed(path)):
        hints = [word.value for word in call.keywords if word.arg == "hint"]
        assert hints, f"line {call.lineno}: no hint"
        text = hints[0].value if isinstance(hints[0], ast.Constant) else "computed"
        assert isinstance(text, str)
        assert text.strip(), f"line {call.lineno}: empty hint"


def test_error_calls_are_found() -> None:
    tree = ast.parse("raise errors.SegQuantError('x')\nraise SegQuantError('y', hint='z')")
    assert len(list(error_calls(tree))) == 2
