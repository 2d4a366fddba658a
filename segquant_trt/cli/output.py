"""How commands answer on stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def answer(summary: Mapping[str, Any], *, as_json: bool) -> None:
    """Print `summary`: one JSON object on one line, or aligned lines for people.

    Raises:
        ValueError: a figure is NaN or infinite and JSON was asked for.
    """
    if as_json:
        print(json.dumps(summary, allow_nan=False), flush=True)
        return
    shown = {name: text for name, value in summary.items() if (text := _text(value)) is not None}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        print(f"{name:<{width}}  {text}")


def _text(value: Any) -> str | None:
    if value is None or value in ([], (), {}):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) or "-" for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_text(item) or '-'}" for key, item in value.items())
    return str(value)
