"""`segquant-trt build`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("build")
@arguments.run_folder
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Build RUN/bundle and prove that every planned site runs on integers."""
    run_stage("build", given, as_json=as_json)
