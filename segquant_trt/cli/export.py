"""`segquant-trt export`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("export")
@arguments.model
@arguments.new_run_folder
@arguments.source
@arguments.staged
def command(as_json: bool, **given: Any) -> None:
    """Trace the denoiser of MODEL into RUN/model.onnx and RUN/model.yaml.

    The weights are not read: the graph points into the checkpoint's own files.
    """
    run_stage("export", given, as_json=as_json)
