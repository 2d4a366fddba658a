"""Print what the installed `tensorrt` module offers, as JSON. Runs in an environment of its own.

{"version": ..., "functions": {name: [signature]}, "classes": {name: {"bases": [...],
"members": {name: number} of an enum, "methods": {name: [signature]}, "properties": {name:
[type, settable]}}}}; signatures as in `(self, flags: int = 0) -> INetworkDefinition`.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any

_DUNDERS = ("__init__",)
_TYPES = (
    (r"tensorrt_bindings\.tensorrt\.", ""),
    (r"(?:typing|typing_extensions|collections\.abc)\.", ""),
    (r"SupportsInt(?: \| SupportsIndex)?", "int"),
    (r"SupportsFloat(?: \| SupportsIndex)?", "float"),
    (r"\bbuffer\b", "Buffer"),
    (r"\bself: \w+", "self"),
    (r"\barg0: \w+\) ->", "self) ->"),
    (r"<(\w+\.\w+): -?\d+>", r"\1"),
    (r"<[^<>]* object at 0x[0-9a-f]+>", "..."),
)


def signatures(name: str, doc: str | None) -> list[str]:
    """What pybind11 writes into docstrings: one line, or one numbered line per overload."""
    found = re.findall(rf"^(?:\d+\. )?{name}(\(.*\) -> .*)$", doc or "", re.MULTILINE)
    return [_plain(text) for text in found if text != "(*args, **kwargs) -> Any"]


def _plain(text: str) -> str:
    for pattern, replacement in _TYPES:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def _property(value: property) -> list[Any]:
    doc = _plain((value.fget and value.fget.__doc__) or "")
    kind = doc.partition("->")[2].strip().split("\n")[0]
    return [kind or "object", value.fset is not None]


def describe(cls: type) -> dict[str, Any]:
    """One class, without what it inherits."""
    entry: dict[str, Any] = {"bases": [b.__name__ for b in cls.__bases__ if b.__name__[0] != "p"]}
    if hasattr(cls, "__members__"):
        return {"members": {name: int(value) for name, value in sorted(cls.__members__.items())}}
    methods: dict[str, list[str]] = {}
    properties: dict[str, list[Any]] = {}
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_") and name not in _DUNDERS:
            continue
        if isinstance(value, property):
            properties[name] = _property(value)
        elif callable(value) and not inspect.isclass(value):
            methods[name] = signatures(name, value.__doc__)
        elif isinstance(value, staticmethod):
            methods[name] = signatures(name, value.__func__.__doc__)
    nested = {
        name: describe(value)
        for name, value in sorted(vars(cls).items())
        if inspect.isclass(value) and hasattr(value, "__members__") and name != "__class__"
    }
    return entry | {"methods": methods, "properties": properties, "nested": nested}


def snapshot(module: Any) -> dict[str, Any]:
    """The whole module."""
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {
        "version": module.__version__,
        "classes": {
            name: describe(value)
            for name, value in sorted(public.items())
            if inspect.isclass(value)
        },
        "functions": {
            name: signatures(name, value.__doc__)
            for name, value in sorted(public.items())
            if inspect.isroutine(value)
        },
    }


if __name__ == "__main__":
    import tensorrt

    json.dump(snapshot(tensorrt), sys.stdout, sort_keys=True, separators=(",", ":"))
