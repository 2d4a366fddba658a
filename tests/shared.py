"""Expensive things that tests share: made once per test run, also under several workers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` unless another test or worker has filled it already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.done")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test run share."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


class LazyFolders(Mapping[str, Path]):
    """Folders by name, each made when it is first asked for."""

    def __init__(self, root: Path, makers: Mapping[str, Callable[[Path], None]]) -> None:
        self._root = root
        self._makers = makers

    def __getitem__(self, name: str) -> Path:
        return once(self._root / name, self._makers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
