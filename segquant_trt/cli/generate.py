"""`segquant-trt generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress


@click.command("generate")
@click.argument("bundle", metavar="BUNDLE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the images.",
)
@click.option("--model", metavar="MODEL", help="Float model, if it is not where the run found it.")
@arguments.sampling
@arguments.machine
@arguments.answers
def command(bundle: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Make images with BUNDLE from the same seeds as the float model, side by side."""
    options = arguments.options_from({"out": out, **given})
    from segquant_trt import pipeline

    with StderrProgress() as progress:
        result = pipeline.generate(bundle, options, progress=progress)
    answer(result.summary, as_json=as_json)
