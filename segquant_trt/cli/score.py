"""`segquant-trt score`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("score")
@arguments.run_folder
@arguments.ranges
@arguments.weight_bits
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Measure what each way to treat each site costs the output, in RUN/scores.safetensors."""
    run_stage("score", given, as_json=as_json)
