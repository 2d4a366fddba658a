"""`segquant-trt analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer
from segquant_trt.cli.stage import run_stage


@click.command("analyze")
@click.argument("path", metavar="RUN|MODEL.onnx", type=click.Path(exists=True, path_type=Path))
@arguments.semantics
@arguments.staged
def command(path: Path, as_json: bool, force: bool, **given: Any) -> None:
    """Find the sites of a graph, their segments, polarity and what they depend on.

    RUN is a run folder: facts.yaml is written beside its model.onnx. Of any other ONNX file the
    facts are only printed; its external data need not exist.
    """
    if path.is_dir():
        run_stage("analyze", {"out": path, "force": force, **given}, as_json=as_json)
        return
    from segquant_trt.analyze import analyze, as_answer
    from segquant_trt.report.inspect_record import describe_record

    facts = analyze(path, timestep=given["timestep"], prompts=given["prompt_inputs"])
    if as_json:
        answer(as_answer(facts), as_json=True)
    else:
        click.echo(describe_record(facts, path.name).text())
