"""`segquant-trt report`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("report")
@arguments.run_folder
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Write RUN/report.html from the records of RUN."""
    run_stage("report", given, as_json=as_json)
