"""The group of commands, and what a failure of any of them looks like."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import click

from segquant_trt import __version__
from segquant_trt.cli.arguments import Session
from segquant_trt.cli.own_stdout import own_stdout
from segquant_trt.errors import SegQuantError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70  # sysexits' EX_SOFTWARE
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Entry(NamedTuple):
    """A command: its module is `segquant_trt.cli.<name>`, imported when it is called."""

    name: str
    summary: str


COMMANDS: tuple[Entry, ...] = (
    Entry("compile", "Compile a denoiser: every stage below, and a report."),
    Entry("export", "Trace the denoiser into model.onnx and model.yaml."),
    Entry("calibrate", "Record denoising trajectories and activation statistics."),
    Entry("analyze", "Find sites, segments, polarity and dependence of a graph."),
    Entry("score", "Measure what each way to treat each site costs the output."),
    Entry("trial", "Run the plans that compete for being chosen."),
    Entry("plan", "Decide what is done to every site, and say why."),
    Entry("rewrite", "Write the quantised graph."),
    Entry("build", "Build the bundle and prove that its sites run on integers."),
    Entry("verify", "Compare the bundle with the float model."),
    Entry("bench", "Time a bundle beside its float model, or anything side by side."),
    Entry("report", "Write the report as one HTML file."),
    Entry("inspect", "Show what a record, graph or bundle holds."),
    Entry("lint", "Say what TensorRT will make of a quantised ONNX graph."),
    Entry("generate", "Make images with a bundle, beside the float model's."),
    Entry("package", "Write what a server needs to serve a bundle."),
    Entry("costs", "Time what treatments cost on this machine, for --costs local."),
    Entry("doctor", "Say what this machine can do, and what to install for the rest."),
)


class LazyGroup(click.Group):
    """A group whose help needs none of its commands' modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the flow."""
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name`; None for an unknown name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"segquant_trt.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from `COMMANDS` alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in COMMANDS])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="segquant-trt")
def group() -> None:
    """Quantising compiler for diffusion denoisers.

    Start with: segquant-trt compile zoo:digits-unet -o run
    """


@dataclass(frozen=True)
class _Failure:
    code: int
    message: str
    hint: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; every failure is told on stderr."""
    session = Session()
    _quieten_libraries()
    try:
        result = group.main(
            args=None if arguments is None else list(arguments),
            prog_name="segquant-trt",
            standalone_mode=False,
            obj=session,
        )
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _tell(error, session)
    return result if isinstance(result, int) else 0


def run() -> None:
    """The console script."""
    own_stdout()
    sys.exit(main())


def _tell(error: Exception, session: Session) -> int:
    if session.debug:
        traceback.print_exception(error)
    failure = _describe(error)
    print(f"error: {failure.message}", file=sys.stderr)
    if failure.hint:
        print(f"hint: {failure.hint}", file=sys.stderr)
    return failure.code


def _describe(error: Exception) -> _Failure:
    if isinstance(error, SegQuantError):
        return _Failure(EXIT_FAILED, error.what, error.hint)
    if isinstance(error, MemoryError):
        return _Failure(
            EXIT_FAILED,
            "this machine has not enough free memory",
            "close other programs, or lower --num-samples, --height and --width",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return _Failure(
            EXIT_FAILED,
            f"no space left on the device{where}",
            "free some space or choose another output folder, then run the same command again",
        )
    return _Failure(
        EXIT_BUG,
        f"unexpected {type(error).__name__}: {error}",
        "run the same command with --debug to see where, and report it",
    )


def _quieten_libraries() -> None:
    # Their advice is for people who call them directly; failures arrive as exceptions anyway.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
