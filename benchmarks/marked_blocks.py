"""Generated blocks of Markdown: what stands between `<!-- table: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from pathlib import Path

from segquant_trt.records.files import atomic_write_bytes

ROOT = Path(__file__).resolve().parents[1]


def block(text: str, name: str) -> str | None:
    """What the block `name` of a file's text holds; None where there is no such block."""
    found = _pattern(name).search(text)
    return None if found is None else found.group(2).strip()


def write_block(path: Path, name: str, content: str) -> None:
    """Put `content` into the block `name` of the file.

    Raises:
        ValueError: the file has no such block.
    """
    text = path.read_text(encoding="utf-8")
    if block(text, name) is None:
        raise ValueError(f"{path} has no block '<!-- table: {name} -->' ... '<!-- end -->'")
    written = _pattern(name).sub(lambda found: f"{found[1]}{content.strip()}\n{found[3]}", text)
    atomic_write_bytes(path, written.encode())


def _pattern(name: str) -> re.Pattern[str]:
    start = re.escape(f"<!-- table: {name} -->\n")
    return re.compile(f"({start})(.*?)(<!-- end -->)", re.DOTALL)
