"""What every stage's command does once its arguments are read."""

from __future__ import annotations

from typing import Any

from segquant_trt.cli.arguments import options_from
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress


def run_stage(stage: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    """Run one stage in its run folder and print its answer."""
    options = options_from(arguments)
    from segquant_trt import pipeline

    with StderrProgress() as progress:
        result = pipeline.run_stage(stage, options, progress=progress)
    answer(result.summary, as_json=as_json)
