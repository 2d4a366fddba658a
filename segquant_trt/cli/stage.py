"""What every stage's command does once its arguments are read."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from segquant_trt.cli.arguments import options_from
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress


def run_stage(stage: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    """Run one stage in its run folder and print its answer.

    Options that are not given are those that the folder was told before, but with `forget`.
    """
    forget = arguments.pop("forget")
    options = options_from(arguments)
    given = None if forget else given_names(arguments)
    from segquant_trt import pipeline

    with StderrProgress() as progress:
        result = pipeline.run_stage(stage, options, progress=progress, given=given)
    answer(result.summary, as_json=as_json)


def given_names(arguments: dict[str, Any]) -> frozenset[str]:
    """The arguments that the command line names."""
    source = click.get_current_context().get_parameter_source
    return frozenset(name for name in arguments if source(name) is not ParameterSource.DEFAULT)
