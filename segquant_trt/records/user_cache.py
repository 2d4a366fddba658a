"""Where things are kept that were made for this user on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """The user's cache folder: `$SEGQUANT_TRT_CACHE`, else `~/.cache/segquant_trt`."""
    chosen = os.environ.get("SEGQUANT_TRT_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "segquant_trt"
