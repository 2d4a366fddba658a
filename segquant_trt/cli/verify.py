"""`segquant-trt verify`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("verify")
@arguments.run_folder
@arguments.verify_inputs
@arguments.sampling
@arguments.machine
@arguments.full
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Compare RUN/bundle with the float model: figures go to RUN/quality.json."""
    run_stage("verify", given, as_json=as_json)
