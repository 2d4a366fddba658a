"""Latent SQNR of the methods that matter, a panel per model, with latency at full size.

python -m benchmarks.ablation.chart     # from the committed record
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablation.rows import SHOWN, Kind, Row, floor_of, models_of, rows_of, slowdown

RESULTS = Path(__file__).parents[1] / "results"
_COLOURS: dict[Kind, str] = {"theirs": "#9aa5b1", "published": "#5b8db8", "ours": "#d9822b"}
_MEANINGS: dict[Kind, str] = {
    "theirs": "other quantisers (same sites, same calibration inputs, better of two settings)",
    "published": "published recipes, as presets of this compiler",
    "ours": "this compiler's planner",
}
_COLUMNS = 3
_ROOM = 1.30  # beside the longest bar, for the figures at the bars' ends


def draw(record: Mapping[str, Any], out: Path) -> None:
    """Write a PNG of the W8A8 rows; nothing where there are none."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    models = [model for model in models_of(record) if rows_of(record, model)]
    if not models:
        return
    columns = min(_COLUMNS, len(models))
    height = -(-len(models) // columns)
    figure, axes = pyplot.subplots(
        height,
        columns,
        figsize=(4.6 * columns + 1.0, 3.4 * height + 0.9),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for panel in axes.flat[len(models) :]:
        panel.set_visible(False)
    for panel, model in zip(axes.flat, models, strict=False):
        _fill(panel, record, model)
    meanings: list[Any] = [
        Patch(color=_COLOURS[kind], label=meaning) for kind, meaning in _MEANINGS.items()
    ]
    meanings.append(
        Line2D([], [], color="0.2", linestyle="--", label="INT8 weights, float activations")
    )
    figure.legend(handles=meanings, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.suptitle(
        "W8A8: SQNR of the final latent in dB (higher is better),\n"
        "and latency at full size over plain static INT8"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def _fill(panel: Any, record: Mapping[str, Any], model: str) -> None:
    rows = rows_of(record, model)
    found = [(shown, shown.of(rows)) for shown in SHOWN]
    longest = max(row["latent_sqnr_db"] for _, row in found if row is not None)
    for position, (shown, row) in enumerate(found):
        if row is not None:
            _bar(panel, position, row, _COLOURS[shown.kind], slowdown(record, model, row["method"]))
    floor = floor_of(record, model)
    if floor is not None:
        longest = max(longest, floor["latent_sqnr_db"])
        panel.axvline(floor["latent_sqnr_db"], color="0.2", linestyle="--", linewidth=1)
    panel.set_title(model)
    panel.set_yticks(range(len(SHOWN)), [shown.label for shown in SHOWN], fontsize=9)
    panel.set_ylim(len(SHOWN) - 0.4, -0.6)
    panel.set_xlim(0, longest * _ROOM)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", linewidth=0.4, alpha=0.5)
    panel.set_axisbelow(True)


def _bar(
    panel: Any, position: int, row: Row, colour: str, ratio: tuple[float, float, float]
) -> None:
    decibels, error = row["latent_sqnr_db"], row["latent_sqnr_db_stderr"]
    panel.barh(position, decibels, xerr=error, color=colour, height=0.72, ecolor="0.25")
    speed = "" if math.isnan(ratio[0]) else f"  {ratio[0]:.2f}x"
    panel.annotate(
        f"{decibels:.1f}{speed}",
        (decibels + error, position),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )


def main() -> None:
    """Draw the committed record again."""
    record = json.loads((RESULTS / "ablation.json").read_text(encoding="utf-8"))
    draw(record, RESULTS / "ablation.png")


if __name__ == "__main__":
    main()
