"""`segquant-trt export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.stage import run_stage


@click.command("export")
@arguments.model
@arguments.new_run_folder
@arguments.source
@click.option(
    "--materialize",
    "copy",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write a self-contained copy, weights included, for other tools.",
)
@arguments.staged
def command(as_json: bool, copy: Path | None, **given: Any) -> None:
    """Trace the denoiser of MODEL into RUN/model.onnx and RUN/model.yaml.

    The graph holds no weights: it points into the checkpoint's own files.
    """
    run_stage("export", given, as_json=as_json)
    if copy is not None:
        from segquant_trt.export import materialize

        materialize(given["out"], copy)
