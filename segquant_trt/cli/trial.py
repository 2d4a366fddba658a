"""`segquant-trt trial`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("trial")
@arguments.run_folder
@arguments.target
@arguments.inputs
@arguments.sampling
@arguments.machine
@arguments.weights
@arguments.selection
@arguments.weight_bits
@arguments.planning
@arguments.freezing
@arguments.trials
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Run the plans that compete for `auto` on seeds of their own, into RUN/trials.yaml.

    `plan` chooses among them by what they did, and expects what was tried to do it again; where
    nothing was run it chooses by what the scores add up to. Of another preset its one plan is run.
    """
    run_stage("trial", given, as_json=as_json)
