"""Progress on stderr: bars for people at a terminal, plain sentences for everybody."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

BAR_AFTER_SECONDS = 2.0


class StderrProgress:
    """A `Progress` on a stream; bars appear on a terminal only, after two seconds.

    Args:
        stream: where to write; stderr as it is at the time of the call when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._drawn = self._stream.isatty()
        self._label: str | None = None
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> StderrProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def note(self, text: str) -> None:
        """Write `text` on a line of its own, above the bar if there is one."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def update(self, label: str, done: int, total: int | None) -> None:
        """Move the bar called `label`; a new label replaces the bar before it."""
        if not self._drawn:
            return
        if label != self._label:
            self._close()
            self._open(label, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        if done == total:
            self._close()

    def _open(self, label: str, total: int | None) -> None:
        from tqdm import tqdm

        self._label = label
        self._bar = tqdm(
            total=total,
            desc=label,
            file=self._stream,
            delay=BAR_AFTER_SECONDS,
            leave=False,
            dynamic_ncols=True,
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._label = None
