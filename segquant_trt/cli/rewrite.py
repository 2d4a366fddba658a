"""`segquant-trt rewrite`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("rewrite")
@arguments.run_folder
@arguments.freezing
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Write RUN/quantized.onnx by the plan."""
    run_stage("rewrite", given, as_json=as_json)
