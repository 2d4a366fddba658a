"""`segquant-trt inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer


@click.command("inspect")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@arguments.answers
def command(path: Path, as_json: bool) -> None:
    """Show what FILE holds: a record, an ONNX graph, a bundle or a run folder."""
    from segquant_trt.report.inspect import describe

    answer(describe(path), as_json=as_json)
