"""Compile every zoo model and its outlier twin for every CPU target, and tabulate the figures.

    python -m benchmarks.end_to_end.zoo_compile --work DIR

Writes `benchmarks/results/zoo_compile.json` and the README's table. Every finished model is a file
under DIR, so an interrupted benchmark goes on where it was; `compile_seconds` is that of a run
from nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablation.cells import cell
from benchmarks.marked_blocks import ROOT, write_block
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.models.zoo import ZOO
from segquant_trt.pipeline import compile
from segquant_trt.records import CPU_TARGETS
from segquant_trt.records.files import atomic_write_json

RESULTS = ROOT / "benchmarks" / "results" / "zoo_compile.json"
KEYS = (
    "sqnr_db_mean", "sqnr_db_worst", "latent_sqnr_db", "latent_sqnr_db_stderr",
    "latent_sqnr_db_float16", "psnr_db", "ssim",
    "classifier_accuracy", "classifier_accuracy_float", "frechet_distance",
    "frechet_distance_float", "latency_ms_float", "latency_ms_quantized", "speedup", "speedup_95",
    "size_bytes_float", "size_bytes_quantized", "sites_total", "sites_integer",
    "macs_integer_share",
)  # fmt: skip


def figures(name: str, target: str, work: Path) -> dict[str, Any]:
    """Compile one model and keep its figures and the wall time."""
    print(f"{name} for {target}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    result = compile(f"zoo:{name}", out=work / f"{name}-{target}", target=target)
    seconds = time.perf_counter() - start
    kept = {key: result.summary[key] for key in KEYS}
    kept["compile_seconds"] = None if result.skipped else round(seconds, 1)
    return {"model": name, "target": target, **kept}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | target | step SQNR mean / worst | latent SQNR (float16 floor) | PSNR | "
        "digits recognised (float) | integer MACs | size |",
        "|-|-|-|-|-|-|-|-|",
    ]
    for row in rows:
        size = row["size_bytes_quantized"] / row["size_bytes_float"]
        lines.append(
            f"| {row['model']} | {row['target']} "
            f"| {row['sqnr_db_mean']:.1f} / {row['sqnr_db_worst']:.1f} dB "
            f"| {_with_error(row)} dB ({row['latent_sqnr_db_float16']:.1f}) "
            f"| {row['psnr_db']:.1f} dB "
            f"| {row['classifier_accuracy']:.1%} ({row['classifier_accuracy_float']:.1%}) "
            f"| {row['macs_integer_share']:.0%} | {size:.2f}x |"
        )
    return "\n".join(lines)


def _with_error(row: dict[str, Any]) -> str:
    error = row.get("latent_sqnr_db_stderr")
    return f"{row['latent_sqnr_db']:.1f}" + ("" if error is None else f" ± {error:.1f}")


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--targets", nargs="+", choices=CPU_TARGETS, default=CPU_TARGETS)
    arguments = parser.parse_args()
    work = arguments.work
    rows = [
        cell(work / f"{name}-{target}.json", partial(figures, name, target, work))
        for target in arguments.targets
        for name in ZOO
    ]
    record = {"hardware": hardware(), "versions": versions(), "rows": rows}
    atomic_write_json(RESULTS, record)
    write_block(ROOT / "README.md", "zoo_compile", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
