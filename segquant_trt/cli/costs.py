"""`segquant-trt costs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress

if TYPE_CHECKING:
    from segquant_trt.records import Target


@click.command("costs")
@arguments.cpu_target
@click.option(
    "-o",
    "--output",
    "out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Cost table to write; default: a file of this machine that `--costs local` finds.",
)
@click.option(
    "--budget",
    "budget_s",
    metavar="SECONDS",
    type=float,
    default=250.0,
    show_default=True,
    help="Timing in all; large sites take more on slow machines.",
)
@click.option("--threads", metavar="N", type=int, help="CPU threads; default: all cores.")
@arguments.answers
def command(
    target: Target, out: Path | None, budget_s: float, threads: int | None, as_json: bool
) -> None:
    """Time single sites under every treatment on this machine, and write their prices.

    Wants a quiet machine. What was timed before an interruption is not timed again.
    """
    from segquant_trt import pipeline

    with StderrProgress() as progress:
        summary = pipeline.write_local_table(
            target, out, budget_s=budget_s, threads=threads, progress=progress
        )
    answer(summary, as_json=as_json)
