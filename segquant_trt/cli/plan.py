"""`segquant-trt plan`."""

from __future__ import annotations

from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress
from segquant_trt.cli.stage import given_names, run_stage


@click.command("plan")
@arguments.run_folder
@arguments.target
@arguments.weights
@arguments.selection
@arguments.weight_bits
@arguments.planning
@arguments.freezing
@click.option(
    "--explain",
    metavar="SITE",
    help="Tell what RUN/plan.yaml does to one site and why, beside all that was weighed. SITE is "
    "a node, a module or a pattern. Plans only where there is no plan yet.",
)
@arguments.staged
def command(as_json: bool, explain: str | None, **given: Any) -> None:
    """Decide what is done to every site, and say why, in RUN/plan.yaml."""
    if explain is None:
        run_stage("plan", given, as_json=as_json)
    else:
        _explain(explain, given, as_json=as_json)


def _explain(site: str, given: dict[str, Any], *, as_json: bool) -> None:
    named = None if given.pop("forget") else given_names(given)
    options = arguments.options_from(given)
    from segquant_trt import pipeline

    with StderrProgress() as progress:
        description = pipeline.explain_site(options, site, given=named, progress=progress)
    if as_json:
        answer(description.as_dict(), as_json=True)
    else:
        click.echo(description.text(rows=None))
