"""`segquant-trt calibrate`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("calibrate")
@arguments.run_folder
@arguments.inputs
@arguments.sampling
@arguments.machine
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Record denoising trajectories of RUN's model, and activation statistics.

    With --inputs the recorded inputs are replayed instead of a pipeline's own trajectories.
    """
    run_stage("calibrate", given, as_json=as_json)
