"""`segquant-trt package`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer


@click.group("package")
def command() -> None:
    """Write what a server needs to serve a bundle."""


@command.command("triton")
@click.argument("bundle", metavar="BUNDLE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    metavar="REPOSITORY",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the model repository.",
)
@click.option("--name", help="The model's name on the server; that of its source by default.")
@click.option(
    "--max-batch-size",
    type=click.IntRange(min=1),
    help="Samples in one batch; as many as the bundle takes, up to 16, by default.",
)
@click.option(
    "--dynamic-batching/--no-dynamic-batching",
    default=True,
    show_default=True,
    help="Compute requests that wait in one batch.",
)
@click.option(
    "--queue-delay-us",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How long a request may wait for others to join its batch.",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many times the model is loaded.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Threads of every instance; 0: all cores.",
)
@click.option(
    "--kept-prompts",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Prompts that every instance remembers, in a bundle made with --hoist-prompt.",
)
@click.option(
    "--warm-up/--no-warm-up",
    default=True,
    show_default=True,
    help="Make one call before the server says that it is ready.",
)
@click.option("--force", is_flag=True, help="Replace a repository that this command wrote.")
@arguments.answers
def triton(bundle: Path, out: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Write a model repository of BUNDLE for NVIDIA's Triton server, with a README and a client."""
    from segquant_trt.package import ServingOptions, package_bundle
    from segquant_trt.serve.integrity import checked_manifest

    options = ServingOptions(**given)
    said = package_bundle(bundle, checked_manifest(bundle), out, options, force=force)
    answer({"repository": str(out), **said}, as_json=as_json)
