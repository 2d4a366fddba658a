"""Write a repository's folder: whole or not at all, and over nothing that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import segquant_trt
from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.scratch import replace_folder, scratch_folder, sync_file

PACKAGED = "packaged.json"
README = "README.md"
CLIENT = "client.py"
EXAMPLE = "example.npz"
CONFIG = "config.pbtxt"
VERSION = "1"

_CLIENT_SOURCE = Path(__file__).parent / "served" / "client.py"


def write_repository(
    out: Path,
    fill: Callable[[Path], dict[str, Any]],
    *,
    sources: tuple[Path, ...],
    force: bool,
) -> dict[str, Any]:
    """Let `fill` write into an empty folder, add the client, and put the folder at `out`.

    `fill` returns what `packaged.json` says; so does this function. `sources` are files and
    folders that must not be inside `out`, nor around it.

    Raises:
        SegQuantError: `out` is in the way or cannot be written.
    """
    for source in sources:
        _check_apart(source.resolve(), out.resolve())
    _check_free(out, force=force)
    with scratch_folder(out) as scratch:
        folder = scratch / out.name
        folder.mkdir()
        said = {"segquant_trt": segquant_trt.__version__, **fill(folder)}
        (folder / CLIENT).write_bytes(_CLIENT_SOURCE.read_bytes())
        atomic_write_json(folder / PACKAGED, said)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                sync_file(path)
        replace_folder(folder, out, scratch=scratch)
    return said


def _check_free(out: Path, *, force: bool) -> None:
    if not out.is_symlink() and not out.exists():
        return
    if out.is_symlink() or not out.is_dir():
        raise SegQuantError(
            f"{out} is not a folder", hint="give the path of a new folder with --output"
        )
    if not any(out.iterdir()):
        return
    if not _is_ours(out):
        raise SegQuantError(
            f"{out} is not empty, and was not written by this command",
            hint="give the path of a new folder with --output; move the model's folder from there "
            "into a repository that holds others",
        )
    if not force:
        raise SegQuantError(
            f"{out} holds a repository already",
            hint="give the path of a new folder with --output, or --force to replace it",
        )


def _is_ours(folder: Path) -> bool:
    """Whether nothing is in the folder but what one run of this command wrote."""
    try:
        said = json.loads((folder / PACKAGED).read_bytes())
        model = said["model"]
        return {path.name for path in folder.iterdir()} <= {
            PACKAGED, README, CLIENT, EXAMPLE, model,
        }  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_apart(source: Path, out: Path) -> None:
    if source == out or source in out.parents or out in source.parents:
        raise SegQuantError(
            f"the repository {out} and its source {source} lie inside one another",
            hint="give the path of a folder beside the source with --output",
        )
