"""The run folder: a lock, and a stamp per finished stage that says from what it was made."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import (
    atomic_write_json,
    digest_of,
    sha256_file,
    writing_failed,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a stage was made from (`key`, and the digest of each input) and what it wrote."""

    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class RunFolder:
    """Files of one compilation. Names are relative to the folder; a folder counts file by file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state = path / ".stages"
        self._digests: dict[str, list[Any]] = _read_json(self._state / "digests.json")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process.

        Raises:
            SegQuantError: another process holds it, or the folder cannot be written.
        """
        fresh = not self.path.exists()
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            stream = (self.path / ".lock").open("a")
        except FileExistsError as error:
            raise SegQuantError(
                f"{self.path} is a file; the output must be a folder",
                hint="choose another folder with -o",
            ) from error
        except OSError as error:
            raise writing_failed(self.path, error) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SegQuantError(
                    f"another run is working in {self.path}",
                    hint="wait for it to end, or choose another folder with -o",
                ) from error
            for leftover in self.path.rglob(".*.tmp"):  # of killed runs: the folder is ours now
                if leftover.is_file():
                    leftover.unlink()
            try:
                yield
            except BaseException:
                if fresh and {path.name for path in self.path.rglob("*")} == {".lock", ".stages"}:
                    shutil.rmtree(self.path, ignore_errors=True)
                raise

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        """sha256 of every existing file among `names`, folders walked; cached by identity."""
        found: dict[str, str] = {}
        for name in names:
            path = self.path / name
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    found[file.relative_to(self.path).as_posix()] = self._digest(file)
        return found

    def _digest(self, file: Path) -> str:
        status = file.stat()
        identity = [status.st_size, status.st_mtime_ns, status.st_ino]
        name = file.relative_to(self.path).as_posix()
        known = self._digests.get(name)
        if known is None or known[:3] != identity:
            self._digests[name] = known = [*identity, sha256_file(file)]
        return str(known[3])

    def stamp(self, stage: str) -> Stamp | None:
        """The stamp of `stage`, or None when it never finished."""
        plain = _read_json(self._state / f"{stage}.json")
        try:
            return Stamp(**plain) if plain else None
        except TypeError:
            return None

    def write_stamp(self, stage: str, stamp: Stamp) -> None:
        """Note that `stage` has finished."""
        atomic_write_json(
            self._state / f"{stage}.json",
            {"key": stamp.key, "inputs": dict(stamp.inputs), "outputs": dict(stamp.outputs)},
        )
        atomic_write_json(self._state / "digests.json", self._digests)

    def drop_stamp(self, stage: str) -> None:
        """Forget that `stage` ever finished."""
        (self._state / f"{stage}.json").unlink(missing_ok=True)

    def require(self, names: Sequence[str], *, stage: str, producers: Mapping[str, str]) -> None:
        """Check that the files a stage reads are there.

        Raises:
            SegQuantError: naming the first missing file and the stage that writes it.
        """
        for name in names:
            if not (self.path / name).exists():
                raise SegQuantError(
                    f"'{stage}' needs {self.path / name}, which does not exist",
                    hint=f"run 'segquant-trt {producers[name]}' first, or 'compile' for all stages",
                )


def stage_key(stage: str, version: str, options: Mapping[str, Any], inputs: Any) -> str:
    """The digest that decides whether a stage must run again."""
    return digest_of(
        {"stage": stage, "version": version, "options": dict(options), "inputs": inputs}
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
