"""Schedulers of diffusers by name."""

from __future__ import annotations

from typing import Any

from segquant_trt.errors import SegQuantError


def compatible_scheduler(own: Any, name: str, subject: str) -> Any:
    """A scheduler of the class `name`, configured as `own` is.

    Raises:
        SegQuantError: the class is none of those that fit; `subject` says what it should fit.
    """
    import diffusers

    allowed = sorted({kind.__name__ for kind in own.compatibles})
    if name not in allowed:
        raise SegQuantError(
            f"scheduler '{name}' does not fit {subject}; allowed: {', '.join(allowed)}",
            hint="choose one of these, or leave the choice to the model",
        )
    return getattr(diffusers, name).from_config(own.config)
