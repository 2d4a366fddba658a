"""`segquant-trt inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer


@click.command("inspect")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--all", "complete", is_flag=True, help="Show every row of long tables.")
@arguments.answers
def command(path: Path, complete: bool, as_json: bool) -> None:
    """Show what FILE holds: a record, an ONNX graph, a bundle or a run folder."""
    from segquant_trt.analyze import analyze
    from segquant_trt.report.inspect import describe

    description = describe(path, analysis=analyze)
    if as_json:
        answer(description.as_dict(), as_json=True)
    else:
        click.echo(description.text(rows=None if complete else 40))
