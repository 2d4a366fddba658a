"""A scratch folder beside an output, which vanishes however the work ends."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segquant_trt.records.files import writing_failed


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, on the same file system; removed at the end.

    What killed processes left behind is removed first: the names carry process ids.

    Raises:
        SegQuantError: the folder cannot be written, or an OSError inside the block.
    """
    scratch = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(out)
        scratch.mkdir()
        yield scratch
    except OSError as error:
        raise writing_failed(out, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_stale(out: Path) -> None:
    """Remove what processes that are gone have left beside `out`."""
    for stale in out.parent.glob(f".{out.name}.*.*.tmp"):
        if not _alive(stale.name.split(".")[-3]):
            shutil.rmtree(stale, ignore_errors=True)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def replace_folder(new: Path, old: Path, *, scratch: Path) -> None:
    """Put the folder `new` in the place of `old`; the replaced one goes with `scratch`."""
    if old.exists():
        old.rename(scratch / "replaced")
    new.rename(old)


def sync_file(path: Path) -> None:
    """Force a written file to the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
