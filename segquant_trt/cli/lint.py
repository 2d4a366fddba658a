"""`segquant-trt lint`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer

if TYPE_CHECKING:
    from segquant_trt.backends.tensorrt.lint import Finding, LintReport, Target

_SHOWN = 3
_OUTCOMES = {
    "parse-error": "the parser will refuse it",
    "build-error": "the builder will fail",
    "not-8-bit": "it will build, and not everything that is coded is computed in 8 bits",
    "fine": "nothing stands against it",
}


@click.command("lint")
@click.argument(
    "path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--target",
    type=click.Choice(("tensorrt", "tensorrt-rtx")),
    default="tensorrt",
    show_default=True,
    help="Edition of TensorRT that shall build it.",
)
@click.option(
    "--gpu", default="sm_89", show_default=True, help="Compute capability of the GPU, as sm_89."
)
@click.option(
    "--tensorrt-version", metavar="VERSION", help="As 10.13 or 11.4; rules of all when left out."
)
@click.option(
    "--plugin-op", "plugins", multiple=True, metavar="NAME", help="Operator that a plugin provides."
)
@click.option("--all", "complete", is_flag=True, help="Show every node of every finding.")
@arguments.answers
def command(
    path: Path,
    target: Target,
    gpu: str,
    tensorrt_version: str | None,
    plugins: tuple[str, ...],
    complete: bool,
    as_json: bool,
) -> int:
    """Say what TensorRT will make of the quantised ONNX graph in FILE, without a GPU.

    Each product with Q/DQ inputs is judged: will it run in 8 bits, and if not, why (--json lists
    them all). The exit status is 1 where the build would fail, compute other values than the file
    says, or silently fall back.
    """
    from segquant_trt.backends.tensorrt.lint import lint

    report = lint(
        path, target=target, capability=gpu, tensorrt_version=tensorrt_version, plugins=plugins
    )
    if as_json:
        answer(report.as_dict(), as_json=True)
    else:
        click.echo("\n".join(_lines(report, shown=None if complete else _SHOWN)))
    return 1 if report.errors else 0


def _lines(report: LintReport, *, shown: int | None) -> Iterator[str]:
    eight = sum(site.eight_bit for site in report.sites)
    version = f" {report.tensorrt_version}" if report.tensorrt_version else ""
    yield f"{report.file} for {report.target}{version} on {report.capability}"
    yield f"  outcome  {_outcome(report)}"
    yield f"  sites    {eight} of {len(report.sites)} in 8 bits"
    for (severity, rule), group in groupby(report.findings, key=_group):
        findings = list(group)
        yield ""
        yield f"{severity}: {rule}{_times(len(findings))}"
        yield from _entries([f"{_place(finding)}{finding.reason}" for finding in findings], shown)
        yield f"  fix: {findings[0].fix}"


def _outcome(report: LintReport) -> str:
    wrong = any(finding.severity == "wrong-result" for finding in report.findings)
    if wrong and report.outcome not in ("parse-error", "build-error"):
        return "it will build, and compute other values than the file says"
    return _OUTCOMES[report.outcome]


def _group(finding: Finding) -> tuple[str, str]:
    return finding.severity, finding.rule


def _times(count: int) -> str:
    return f" ({count} nodes)" if count > 1 else ""


def _place(finding: Finding) -> str:
    return f"{finding.node}: " if finding.node else ""


def _entries(lines: list[str], shown: int | None) -> Iterator[str]:
    kept = lines if shown is None or len(lines) <= shown + 1 else lines[:shown]
    yield from (f"  {line}" for line in kept)
    if len(kept) < len(lines):
        yield f"  ... and {len(lines) - len(kept)} more (--all shows them)"
