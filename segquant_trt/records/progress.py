"""How long work says where it stands; the command line draws it, the API may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What stages talk to. Both calls are cheap and may come at any rate."""

    def note(self, text: str) -> None:
        """Say one sentence: a stage was skipped, a default was chosen, a warning."""

    def update(self, label: str, done: int, total: int | None) -> None:
        """`done` of `total` units of `label` are finished (`total` None: unknown).

        A new label starts a new bar; `done == total` ends it.
        """


class Silent:
    """Progress that nobody watches."""

    def note(self, text: str) -> None:
        """Drop the sentence."""

    def update(self, label: str, done: int, total: int | None) -> None:
        """Drop the figure."""
