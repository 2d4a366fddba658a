"""Prompts that calibration and verification run through text-to-image pipelines."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from segquant_trt.errors import SegQuantError

_DEFAULT = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What to paint, and what to keep away from (empty: nothing)."""

    text: str
    negative: str = ""


def read_prompts(path: Path | None = None) -> tuple[Prompt, ...]:
    """One prompt per line, or JSON lines with `prompt` and `negative_prompt`; 32 by default.

    Raises:
        SegQuantError: the file is unreadable, holds no prompt, or a line is malformed.
    """
    path = path or _DEFAULT
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SegQuantError(
            f"the prompts file {path} cannot be read as text: {error}",
            hint="give a UTF-8 file with one prompt per line, or JSON lines",
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    prompts = tuple(_parse(line, f"{path}:{number}") for number, line in numbered)
    if not prompts:
        raise SegQuantError(
            f"the prompts file {path} is empty", hint="write one prompt per line into it"
        )
    return prompts


def _parse(line: str, place: str) -> Prompt:
    if not line.startswith("{"):
        return Prompt(text=line)
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise SegQuantError(
            f"{place} is not valid JSON: {error}", hint='write {"prompt": "..."} on one line'
        ) from error
    text, negative = entry.get("prompt"), entry.get("negative_prompt", "")
    unknown = entry.keys() - {"prompt", "negative_prompt"}
    if not isinstance(text, str) or not isinstance(negative, str) or unknown:
        raise SegQuantError(
            f"{place} must have 'prompt' and may have 'negative_prompt', both text; "
            f"it has {', '.join(sorted(entry))}",
            hint='write {"prompt": "...", "negative_prompt": "..."}',
        )
    return Prompt(text=text, negative=negative)
