"""Quality against latency, a panel per model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MARKERS = {"W8A8": "o", "W4A8": "s", "W4A16": "^"}
_COLUMNS = 3


def draw(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write a PNG: latent SQNR over latency at full size, plain static INT8 being 1.

    Methods without a latency (other people's) are dotted lines.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = list(dict.fromkeys(row["model"] for row in rows))
    if not models:
        return
    columns = min(_COLUMNS, len(models))
    height = -(-len(models) // columns)
    figure, axes = pyplot.subplots(
        height, columns, figsize=(6 * columns, 4.5 * height), squeeze=False, layout="constrained"
    )
    for panel in axes.flat[len(models) :]:
        panel.set_visible(False)
    for panel, model in zip(axes.flat, models, strict=False):
        panel.set_title(model)
        panel.set_xlabel("latency over plain INT8's")
        panel.set_ylabel("latent SQNR in dB")
        for row in rows:
            if row["model"] == model:
                _mark(panel, row)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    pyplot.close(figure)


def _mark(panel: Any, row: dict[str, Any]) -> None:
    decibels = row["latent_sqnr_db"]
    label = {"fontsize": 6, "textcoords": "offset points", "xytext": (3, 2)}
    if "latency" not in row:
        panel.axhline(decibels, linestyle=":", linewidth=0.7, color="0.6")
        panel.annotate(row["method"], (1.0, decibels), **label)
        return
    speedup = row["latency"]["candidate"]["over_plain"]
    bars = [
        [1 / speedup["median"] - 1 / speedup["high"]],
        [1 / speedup["low"] - 1 / speedup["median"]],
    ]
    at = 1 / speedup["median"]
    panel.errorbar(
        at,
        decibels,
        xerr=bars,
        yerr=row["latent_sqnr_db_stderr"],
        fmt=_MARKERS[row["format"]],
        markersize=4,
        linewidth=0.7,
    )
    panel.annotate(row["method"], (at, decibels), **label)
