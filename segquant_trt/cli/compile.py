"""`segquant-trt compile`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress


@click.command("compile", short_help="Compile a denoiser: every stage, and a report.")
@arguments.model
@arguments.new_run_folder
@arguments.target
@arguments.source
@arguments.inputs
@arguments.verify_inputs
@arguments.sampling
@arguments.machine
@arguments.ranges
@arguments.weights
@arguments.selection
@arguments.weight_bits
@arguments.planning
@arguments.trials
@arguments.freezing
@arguments.full
@arguments.force
@arguments.answers
def command(as_json: bool, **given: Any) -> None:
    """Compile MODEL into a checked bundle and a report.

    MODEL is a zoo model (zoo:digits-unet, zoo:digits-mmdit, zoo:digits-flux, and each with
    -outliers behind it), a folder of a diffusers pipeline or denoiser, or a hub id.

    Stages whose inputs and options are unchanged are skipped, so the same command continues
    after an interruption.
    """
    options = arguments.options_from(given)
    from segquant_trt import pipeline

    with StderrProgress() as progress:
        result = pipeline.compile_model(options, progress=progress)
    answer(result.summary, as_json=as_json)
