"""Options that a run folder was told: a single stage works with those of its compilation."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import from_plain
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Progress

_FILE = ".stages/options.json"
_OF_ONE_COMMAND = ("out", "force", "verify_digests")
_OF_THE_MODEL = ("subfolder", "revision")

REMEMBERED = tuple(
    field.name for field in fields(CompileOptions) if field.name not in _OF_ONE_COMMAND
)


def remember(options: CompileOptions, names: Collection[str]) -> None:
    """Keep the options `names` in the run folder, in place of what it knew of them.

    Raises:
        SegQuantError: the folder cannot be written.
    """
    path = options.out / _FILE
    try:
        known, sound = _read(path), True
    except SegQuantError:
        known, sound = {}, False
    told = {name: _plain(getattr(options, name)) for name in names if name in REMEMBERED}
    before = {name: _plain(value) for name, value in known.items()}
    after = {name: value for name, value in (before | told).items() if value != _DEFAULTS[name]}
    if after != before or not sound:
        atomic_write_json(path, after)


def recall(
    options: CompileOptions, names: Collection[str], *, given: Collection[str], progress: Progress
) -> CompileOptions:
    """The options, with what the run folder knows of those `names` that are not `given`.

    What was recalled is noted; a damaged memory is noted and not used.
    """
    try:
        known = _read(options.out / _FILE)
    except SegQuantError as error:
        progress.note(f"{error.what}; it is not used")
        return options
    kept = set(names) - set(given) - {"model"}
    if options.model != known.get("model"):
        kept -= set(_OF_THE_MODEL)
    recalled = {name: value for name, value in known.items() if name in kept}
    if recalled:
        flags = " ".join(_flags(name, value) for name, value in recalled.items())
        progress.note(f"as an earlier command was told (--forget does without): {flags}")
    return replace(options, **recalled)


def _read(path: Path) -> dict[str, Any]:
    """What the file holds; empty without one.

    Raises:
        SegQuantError: it cannot be read, or holds something else than options.
    """
    try:
        plain = json.loads(path.read_text())
        if not plain.keys() <= set(REMEMBERED):
            raise ValueError
        options = from_plain({**plain, "out": ""}, CompileOptions, origin=str(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, SegQuantError) as error:
        raise SegQuantError(
            f"{path} does not hold options of this version", hint="delete it"
        ) from error
    return {name: getattr(options, name) for name in plain}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())  # a later command may run elsewhere
    return list(value) if isinstance(value, tuple) else value


def _flags(name: str, value: Any) -> str:
    flag = "--" + name.replace("_", "-")
    if value is True:
        return flag
    if value is False:
        return "--no-" + flag.removeprefix("--")
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{flag} {shlex.quote(str(item))}" for item in values)


_DEFAULTS = {field.name: _plain(field.default) for field in fields(CompileOptions)}
