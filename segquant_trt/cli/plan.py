"""`segquant-trt plan`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("plan")
@arguments.run_folder
@arguments.target
@arguments.weights
@arguments.selection
@arguments.weight_bits
@arguments.planning
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Decide what is done to every site, and say why, in RUN/plan.yaml."""
    run_stage("plan", given, as_json=as_json)
