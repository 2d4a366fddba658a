"""`segquant-trt doctor`."""

from __future__ import annotations

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer


@click.command("doctor")
@arguments.answers
def command(as_json: bool) -> None:
    """Say what this machine can do, and what to install for the rest."""
    from segquant_trt.report.doctor import examine

    diagnosis = examine()
    if as_json:
        answer(diagnosis.as_dict(), as_json=True)
    else:
        click.echo(diagnosis.text())
