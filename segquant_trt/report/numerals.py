"""Numbers as people read them: three significant digits and a unit."""

from __future__ import annotations

import math

NOTHING = "\N{EN DASH}"


def decibels(value: float | None) -> str:
    """`31.42` -> `31.4 dB`; None -> a dash."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "\N{INFINITY} dB" if value > 0 else "\N{MINUS SIGN}\N{INFINITY} dB"
    return f"{_signed(value, 1)} dB"


def percent(share: float | None, digits: int = 1) -> str:
    """`0.973` -> `97.3 %`; None -> a dash."""
    return NOTHING if share is None else f"{_signed(100 * share, digits)} %"


def size(size_bytes: float | None) -> str:
    """`5_900_000` -> `5.90 MB` (powers of ten, as file managers count)."""
    if size_bytes is None:
        return NOTHING
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 999.5:
            return f"{significant(size_bytes)} {unit}"
    return f"{significant(size_bytes / 1000)} TB"


def milliseconds(value_ms: float | None) -> str:
    """`12.345` -> `12.3 ms`; from 10 s on in seconds."""
    if value_ms is None:
        return NOTHING
    if value_ms >= 10_000:
        return f"{significant(value_ms / 1000)} s"
    return f"{significant(value_ms)} ms"


def ratio(value: float | None) -> str:
    """`1.4234` -> `1.42\u00d7`."""
    return NOTHING if value is None else f"{value:.2f}\N{MULTIPLICATION SIGN}"


def significant(value: float) -> str:
    """Three significant digits without an exponent for ordinary magnitudes."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    # Of the rounded number: 0.9996 is shown as 1.00.
    exponent = int(f"{value:.2e}".partition("e")[2])
    if not -4 <= exponent < 6:
        return f"{value:.2e}"
    return _signed(value, max(0, 2 - exponent))


def _signed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
