"""The one exception that users see: what is wrong, where, and what to do next."""

from __future__ import annotations


class SegQuantError(Exception):
    """A failure that has a clear cause outside this program's own logic.

    Args:
        what: the file or site concerned, the offending value, and what is allowed.
        hint: the next step for the user, usually a command.
    """

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(f"{what}\n  hint: {hint}")
        self.what = what
        self.hint = hint


class MissingDependencyError(SegQuantError):
    """An optional package is needed and is not installed."""

    def __init__(self, package: str, *, extra: str | None, why: str) -> None:
        target = f"segquant-trt[{extra}]" if extra else package
        super().__init__(
            f"{why} needs the Python package '{package}', which is not installed",
            hint=f"pip install '{target}'",
        )
        self.package = package
