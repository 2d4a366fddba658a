"""`segquant-trt analyze`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("analyze")
@arguments.run_folder
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Find the linear and convolution sites of RUN/model.onnx."""
    run_stage("analyze", given, as_json=as_json)
