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
@click.argument(
    "paths",
    metavar="BUNDLE|ENGINE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
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
    help="Samples in one batch; as many as the bundle takes, up to 16, by default. Engines: what "
    "their profiles say.",
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
    default=0,
    show_default=True,
    help="Prompts that every instance remembers, in a bundle made with --hoist-prompt; requests "
    "then share no batches.",
)
@click.option(
    "--warm-up/--no-warm-up",
    default=True,
    show_default=True,
    help="Make one call before the server says that it is ready.",
)
@click.option(
    "--dynamicPlugins",
    "plugins",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A plugin library that the engines need; may be given several times.",
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs",
    default=True,
    show_default=True,
    help="Let the server capture CUDA graphs of engines.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Package version-compatible engines, which carry code that the server executes.",
)
@click.option("--force", is_flag=True, help="Replace a repository that this command wrote.")
@arguments.answers
def triton(paths: tuple[Path, ...], out: Path, force: bool, as_json: bool, **given: Any) -> None:
    """Write a model repository for NVIDIA's Triton server, with a README and a client.

    Of a BUNDLE for CPUs, or of ENGINES of one denoiser for several kinds of GPU, each with the
    record that its build wrote.
    """
    from segquant_trt.package import (
        ServingOptions,
        package_bundle,
        package_engines,
        package_of,
        told_apart,
    )
    from segquant_trt.serve.integrity import checked_manifest

    engines = {name: given.pop(name) for name in ("plugins", "cuda_graphs", "trust")}
    options = ServingOptions(**given)
    bundle = told_apart(paths)
    if bundle is None:
        package = package_of(paths, name=options.name, **engines)
        said = package_engines(package, out, options, force=force)
    else:
        said = package_bundle(bundle, checked_manifest(bundle), out, options, force=force)
    answer({"repository": str(out), **said}, as_json=as_json)
