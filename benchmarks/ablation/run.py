"""The ablation: models x methods x formats.

    python -m benchmarks.ablation.run --work DIR [--models ...] [--methods ...] [--latency]

Every finished cell is a file under DIR, so that an interrupted run goes on where it was. Prints the
table, and writes benchmarks/results/ablation.json and ablation.png. A cell that fails is named and
left out; the next run tries it again.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ablation.chart import draw
from benchmarks.ablation.matrix import Cell, Matrix
from benchmarks.ablation.methods import FORMATS, METHODS, Format, Method, Own, methods_named
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.models.zoo import ZOO
from segquant_trt.records import TARGETS, Target
from segquant_trt.records.files import atomic_write_json

RESULTS = Path(__file__).parents[1] / "results"
PLAIN = methods_named(["plain"])[0]


def cells(
    models: list[str], methods: tuple[Method, ...], formats: list[Format], target: Target
) -> Iterator[Cell]:
    """Every combination that exists, model by model."""
    for model in models:
        for chosen in formats:
            for method in methods:
                if chosen in method.formats:
                    yield Cell(model=model, method=method, format=chosen, target=target)


def row(matrix: Matrix, wanted: Cell, *, latency: bool, budget_s: float) -> dict[str, Any]:
    """Figures of one cell, with its latency if it is asked for and the method is our own."""
    found = matrix.quality(wanted)
    if latency and isinstance(wanted.method.how, Own):
        plain = Cell(model=wanted.model, method=PLAIN, format="W8A8", target=wanted.target)
        matrix.quality(plain)
        found = {**found, "latency": matrix.latency(wanted, plain, budget_s=budget_s)}
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | format | method | step SQNR mean / worst | latent SQNR | PSNR | recognised "
        "| integer MACs | size | full-size speed, float / plain = 1 |",
        "|-|-|-|-|-|-|-|-|-|-|",
    ]
    for found in rows:
        size = found["size_bytes"] / found["size_bytes_float"]
        lines.append(
            f"| {found['model']} | {found['format']} | {found['method']} "
            f"| {found['sqnr_db_mean']:.1f} / {found['sqnr_db_worst']:.1f} dB "
            f"| {found['latent_sqnr_db']:.1f} ± {found['latent_sqnr_db_stderr']:.1f} dB "
            f"| {found['psnr_db']:.1f} dB | {found['classifier_accuracy']:.1%} "
            f"| {found['macs_integer_share']:.1%} | {size:.2f}x | {_speed(found)} |"
        )
    return "\n".join(lines)


def _speed(found: dict[str, Any]) -> str:
    if "latency" not in found:
        return ""
    candidate = found["latency"]["candidate"]
    over_float, over_plain = candidate["over_float"], candidate["over_plain"]
    return (
        f"{over_float['median']:.2f}x ({over_float['low']:.2f}-{over_float['high']:.2f}) / "
        f"{over_plain['median']:.2f}x ({over_plain['low']:.2f}-{over_plain['high']:.2f})"
    )


def main() -> None:
    """Compute what is missing, then tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--target", choices=TARGETS, default="onnxruntime")
    parser.add_argument("--latency", action="store_true", help="also at full size: minutes a cell")
    parser.add_argument("--budget", type=float, default=100.0, help="seconds per latency")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    matrix = Matrix(arguments.work)
    wanted = cells(
        arguments.models, methods_named(arguments.methods), arguments.formats, arguments.target
    )
    rows = []
    for one in wanted:
        print(one.place, file=sys.stderr, flush=True)
        try:
            rows.append(row(matrix, one, latency=arguments.latency, budget_s=arguments.budget))
        except Exception:  # other people's tools raise anything
            traceback.print_exc(limit=3)
            print(f"failed, left out: {one.place}", file=sys.stderr, flush=True)
    record = {"hardware": hardware(), "versions": versions(), "rows": rows}
    atomic_write_json(arguments.results / "ablation.json", record)
    draw(rows, arguments.results / "ablation.png")
    print(table(rows))


if __name__ == "__main__":
    main()
