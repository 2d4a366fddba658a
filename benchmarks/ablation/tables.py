"""The ablation's tables, as Markdown between markers of both READMEs.

python -m benchmarks.ablation.tables     # from the committed record
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablation.methods import FORMATS
from benchmarks.ablation.rows import SHOWN, Row, floor_of, models_of, rows_of, slowdown
from benchmarks.marked_blocks import ROOT, write_block

RESULT = ROOT / "benchmarks" / "results" / "ablation.json"
_PREFIX = "digits-"
_ABSENT = "-"


def write_tables(record: Mapping[str, Any]) -> None:
    """Put every table of `blocks` where it belongs."""
    for (path, name), content in blocks(record).items():
        write_block(path, name, content)


def blocks(record: Mapping[str, Any]) -> dict[tuple[Path, str], str]:
    """All tables, by file and marker."""
    full = ROOT / "benchmarks" / "README.md"
    return {
        (ROOT / "README.md", "ablation"): short_table(record),
        **{
            (full, f"ablation {chosen}"): latent_table(record, chosen)
            for chosen in FORMATS
            if chosen != "W8A16"
        },
        (full, "ablation images"): image_table(record),
        (full, "ablation latency"): latency_table(record),
    }


def short_table(record: Mapping[str, Any]) -> str:
    """W8A8 rows of `SHOWN`: latent SQNR, and latency over plain static INT8's where timed."""
    models = models_of(record)
    lines = _head("W8A8", models)
    for shown in SHOWN:
        found = {model: shown.of(rows_of(record, model)) for model in models}
        if any(found.values()):
            cells = [_with_latency(record, model, found[model]) for model in models]
            lines.append(f"| {shown.label} | {' | '.join(cells)} |")
    floors = [floor_of(record, model) for model in models]
    if any(floors):
        told = " | ".join(_decibels(floor) for floor in floors)
        lines.append(f"| *INT8 weights, float activations* | {told} |")
    return "\n".join(lines)


def latent_table(record: Mapping[str, Any], chosen: str) -> str:
    """Every method of one format: latent SQNR and its standard error."""
    models = models_of(record)
    named = {
        model: {row["method"]: row for row in rows_of(record, model, chosen)} for model in models
    }
    methods = list(dict.fromkeys(method for rows in named.values() for method in rows))
    lines = _head(f"{chosen} method", models)
    for method in methods:
        cells = [_with_error(named[model].get(method)) for model in models]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def image_table(record: Mapping[str, Any]) -> str:
    """Every row whose images were judged, in full."""
    lines = [
        "| model | format | method | step SQNR mean / worst | PSNR | SSIM | recognised (float) "
        "| Fréchet distance (float) | integer MACs | coded MACs | size |",
        "|-|-|-|-|-|-|-|-|-|-|-|",
    ]
    for row in record["rows"]:
        if row["classifier_accuracy"] is None:
            continue
        size = row["size_bytes"] / row["size_bytes_float"]
        lines.append(
            f"| {row['model'].removeprefix(_PREFIX)} | {row['format']} | {row['method']} "
            f"| {row['sqnr_db_mean']:.1f} / {row['sqnr_db_worst']:.1f} dB "
            f"| {row['psnr_db']:.1f} dB | {row['ssim']:.4f} "
            f"| {row['classifier_accuracy']:.1%} ({row['classifier_accuracy_float']:.1%}) "
            f"| {row['frechet_distance']:.1f} ({row['frechet_distance_float']:.1f}) "
            f"| {_share(row['macs_integer_share'])} | {_share(row['macs_coded_share'])} "
            f"| {size:.2f}x |"
        )
    return "\n".join(lines)


def latency_table(record: Mapping[str, Any]) -> str:
    """Latency at full size with 95 % intervals, and what the planner had expected."""
    lines = [
        "| model at full size | plan | latency | over plain (95 %) | expected "
        "| speed-up over float (95 %) | machine |",
        "|-|-|-|-|-|-|-|",
    ]
    for found in record["latencies"]:
        machine = "quiet" if found["quiet"] else "not quiet"
        for name, figure in found["variants"].items():
            middle, low, high = slowdown(record, found["model"], name)
            faster = figure["over_float"]
            lines.append(
                f"| {found['model'].removeprefix(_PREFIX)} | {name} | {figure['median_ms']:.0f} ms "
                f"| {middle:.3f}x ({low:.3f}-{high:.3f}) | {_expected(found, name)} "
                f"| {faster['median']:.2f}x ({faster['low']:.2f}-{faster['high']:.2f}) "
                f"| {machine} |"
            )
    return "\n".join(lines)


def _expected(found: Mapping[str, Any], name: str) -> str:
    prediction = found["predictions"].get(name)
    if prediction is None:
        return _ABSENT
    return f"{prediction['latency_ms'] / prediction['latency_ms_plain']:.3f}x"


def _head(first: str, models: list[str]) -> list[str]:
    names = " | ".join(model.removeprefix(_PREFIX) for model in models)
    return [f"| {first} | {names} |", "|-" * (len(models) + 1) + "|"]


def _share(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.1%}"


def _decibels(row: Row | None) -> str:
    return _ABSENT if row is None else f"{row['latent_sqnr_db']:.1f} dB"


def _with_error(row: Row | None) -> str:
    if row is None:
        return _ABSENT
    return f"{row['latent_sqnr_db']:.1f} ± {row['latent_sqnr_db_stderr']:.1f}"


def _with_latency(record: Mapping[str, Any], model: str, row: Row | None) -> str:
    if row is None:
        return _ABSENT
    ratio = slowdown(record, model, row["method"])[0]
    told = "" if ratio != ratio else f" ({ratio:.2f}x)"
    return _decibels(row) + told


def main() -> None:
    """Write the committed record's tables."""
    write_tables(json.loads(RESULT.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
