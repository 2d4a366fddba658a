"""Argument groups that the commands share, and the options record that they fill."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from segquant_trt.records.costs import LOCAL
from segquant_trt.records.options import (
    DTYPES,
    OBJECTIVES,
    PRESETS,
    RANGE_METHODS,
    WEIGHT_SCALE_METHODS,
    CompileOptions,
)
from segquant_trt.records.plan import CPU_TARGETS, TARGETS

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(CompileOptions)}
_EXISTING = click.Path(exists=True, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Costs(click.ParamType[Path]):
    """A file that exists, or the word that stands for this machine's own table."""

    name = "costs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The file, absolute if it has the word's name."""
        if str(value) == str(LOCAL):
            return LOCAL
        path: Path = _FILE.convert(value, param, ctx)
        return path.absolute() if path == LOCAL else path


@dataclass
class Session:
    """What `main` must still know when a command has failed."""

    debug: bool = False


def _keep_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Session).debug |= value


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(filter(None, (n.strip() for n in value.split(","))))


def _together(*decorators: Decorator) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _choice(flag: str, choices: tuple[str, ...], text: str) -> Decorator:
    name = flag.lstrip("-").replace("-", "_")
    return click.option(
        flag, type=click.Choice(choices), default=_DEFAULTS[name], show_default=True, help=text
    )


model = click.argument("model", metavar="MODEL")
run_folder = click.argument(
    "out", metavar="RUN", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
new_run_folder = click.option(
    "-o",
    "--output",
    "out",
    metavar="RUN",
    required=True,
    type=click.Path(path_type=Path),
    help="Run folder; a folder of an earlier run is continued.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object as the last line of stdout."
)
debug = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_keep_debug,
    help="Show the traceback of an error.",
)
force = click.option("--force", is_flag=True, help="Run the stage even if nothing has changed.")

source = _together(
    click.option("--subfolder", metavar="NAME", help="Denoiser's folder inside MODEL."),
    click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub id."),
    click.option(
        "--verify-digests",
        is_flag=True,
        help="Read the whole checkpoint again and compare its digests.",
    ),
)
target = _choice("--target", TARGETS, "Runtime that the bundle is for.")
cpu_target = _choice("--target", CPU_TARGETS, "Runtime that is timed here.")
inputs = click.option(
    "--inputs",
    metavar="FILE|DIR",
    type=_EXISTING,
    help="Recorded denoiser inputs (.safetensors) to calibrate with.",
)
verify_inputs = click.option(
    "--verify-inputs",
    metavar="FILE|DIR",
    type=_EXISTING,
    help="Held-out denoiser inputs (.safetensors) to verify with.",
)
sampling = _together(
    click.option(
        "--prompts",
        metavar="FILE",
        type=_FILE,
        help="Prompts: lines of text, or JSONL with prompt and negative_prompt.",
    ),
    click.option("--num-samples", metavar="N", type=int, help="How many prompts or classes."),
    click.option("--steps", metavar="N", type=int, help="Denoising steps."),
    click.option("--guidance-scale", metavar="X", type=float, help="Classifier-free guidance."),
    click.option("--height", metavar="PX", type=int, help="Image height in pixels."),
    click.option("--width", metavar="PX", type=int, help="Image width in pixels."),
    click.option("--scheduler", metavar="CLASS", help="Scheduler class of diffusers."),
    click.option(
        "--seed", metavar="N", type=int, default=_DEFAULTS["seed"], show_default=True,
        help="First seed of the initial noise; trials and verification take later ones.",
    ),
)  # fmt: skip
machine = _together(
    click.option(
        "--device", metavar="NAME", default=_DEFAULTS["device"], show_default=True,
        help="Torch device that runs the float pipeline.",
    ),
    _choice("--dtype", DTYPES, "Float type of the float pipeline."),
    click.option("--threads", metavar="N", type=int, help="CPU threads; default: all cores."),
)  # fmt: skip
ranges = _choice("--range-method", RANGE_METHODS, "How activation ranges are chosen.")
weights = _choice("--weight-scales", WEIGHT_SCALE_METHODS, "How weight scales are chosen.")
selection = _together(
    click.option(
        "--quantize-all",
        is_flag=True,
        help="Quantise embedders, modulation and the final projection too.",
    ),
    click.option(
        "--keep-float",
        metavar="PATTERN",
        multiple=True,
        help="Leave sites that match in float; may be given again.",
    ),
)
planning = _together(
    _choice("--preset", PRESETS, "Whose choices are made for the sites."),
    _choice("--objective", OBJECTIVES, "How much latency `auto` may spend on the image."),
    click.option(
        "--max-latency",
        metavar="MS|RATIOx",
        help="What `auto` may spend: milliseconds by the cost table, or 1.05x of plain INT8.",
    ),
    click.option(
        "--target-sqnr",
        metavar="DB",
        type=float,
        help="Make the fastest plan that is expected to reach this SQNR per step.",
    ),
    click.option("--rules", metavar="FILE", type=_FILE, help="YAML rules for single sites."),
    click.option(
        "--costs",
        metavar="FILE|local",
        type=_Costs(),
        help="Cost table to price sites by; `local` is what the command `costs` measured here.",
    ),
    click.option(
        "--cost-scale",
        metavar="ROWS,WIDTH",
        help="Price sites as if they had that many times the rows and the width.",
    ),
)
trials = click.option(
    "--trials/--no-trials",
    default=_DEFAULTS["trials"],
    help="Run the plans that compete for `auto` on seeds of their own, and choose among them by "
    "what they do. Default: for checkpoints of up to 2 GiB.",
)
freezing = _together(
    click.option(
        "--freeze-schedule",
        metavar="SCHEDULER:STEPS",
        help="Replace what depends on the timestep alone by tables over these steps; a class of "
        "diffusers or `default`, :HxW for schedulers that shift by size, several with commas.",
    ),
    click.option(
        "--fallback/--no-fallback",
        default=_DEFAULTS["fallback"],
        show_default=True,
        help="Keep a second graph in the bundle for timesteps that are not frozen.",
    ),
    click.option(
        "--hoist-prompt/--no-hoist-prompt",
        default=_DEFAULTS["hoist_prompt"],
        show_default=True,
        help="Compute what a prompt fixes once per prompt, in a graph of its own; with "
        "--freeze-schedule also what depends on the prompt and the timestep.",
    ),
)
weight_bits = _together(
    click.option(
        "--weight-bits",
        metavar="N",
        type=int,
        default=_DEFAULTS["weight_bits"],
        show_default=True,
        help="Width of the weights' codes: 8 or 4.",
    ),
    click.option(
        "--weight-only", is_flag=True, help="Code weights alone; activations stay in float."
    ),
    click.option(
        "--weight-block",
        metavar="N|channel",
        help="With --weight-only: input channels that share a weight scale (16 to 256; 32 for "
        "four bits unless it is given), or one scale per output channel.",
    ),
)
semantics = _together(
    click.option("--timestep", metavar="NAME", help="Graph input that is the timestep."),
    click.option(
        "--prompt-inputs",
        metavar="A,B",
        callback=_names,
        help="Graph inputs that one prompt fixes for all steps.",
    ),
)
full = click.option(
    "--full", is_flag=True, help="Verify on 1,000 samples instead of a quick selection."
)
answers = _together(as_json, debug)
staged = _together(
    click.option(
        "--forget",
        is_flag=True,
        help="Take defaults for what is not given, not what earlier commands were told.",
    ),
    force,
    answers,
)


def options_from(arguments: dict[str, Any]) -> CompileOptions:
    """The options record of a command's arguments.

    Raises:
        SegQuantError: a value is outside what its option allows.
    """
    return CompileOptions(**arguments)
