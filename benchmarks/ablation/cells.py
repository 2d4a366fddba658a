"""Finished pieces of a long benchmark: JSON files that an interrupted run finds again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from segquant_trt.records.files import atomic_write_json

Result = TypeVar("Result")


def cell(path: Path, compute: Callable[[], Result]) -> Result:
    """What `path` holds, else what `compute` returns, which is written there first."""
    if not path.exists():
        atomic_write_json(path, compute())
    return cast(Result, found(path))


def found(path: Path) -> Any | None:
    """What `path` holds; None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
