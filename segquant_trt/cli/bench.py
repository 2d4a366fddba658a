"""`segquant-trt bench`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("bench")
@arguments.run_folder
@arguments.machine
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Measure latency, memory and size of RUN/bundle beside the float model."""
    run_stage("bench", given, as_json=as_json)
