"""A pipeline or denoiser that is loaded already, as a folder that stages can read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.scratch import replace_folder, scratch_folder
from segquant_trt.records.stage import content_of


def named_model(model: Any, folder: Path) -> str:
    """What `resolve` takes: a name or path as it is, a loaded object saved below `folder` first.

    Raises:
        SegQuantError: neither a name nor a diffusers object.
    """
    return str(model if isinstance(model, (str, Path)) else saved_source(model, folder))


def saved_source(model: Any, folder: Path) -> Path:
    """Save a diffusers object below `folder`; untouched when it holds the same bytes already.

    Returns:
        The model's folder, named by its class.

    Raises:
        SegQuantError: the object cannot be saved, or is no diffusers object.
    """
    kind = type(model).__name__
    if not hasattr(model, "save_pretrained"):
        raise SegQuantError(
            f"compile() cannot take a {kind}: it is no path, diffusers pipeline or denoiser",
            hint="give a folder, a hub id, zoo:NAME, or an object with save_pretrained",
        )
    target = folder / kind
    with scratch_folder(target) as scratch:
        fresh = scratch / kind
        model.save_pretrained(fresh, safe_serialization=True)
        if target.exists() and content_of(target) == content_of(fresh):
            shutil.rmtree(fresh)
        else:
            replace_folder(fresh, target, scratch=scratch)
    return target
