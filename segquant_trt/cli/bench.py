"""`segquant-trt bench`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from segquant_trt.cli import arguments
from segquant_trt.cli.output import answer
from segquant_trt.cli.progress import StderrProgress
from segquant_trt.cli.stage import run_stage
from segquant_trt.errors import SegQuantError

if TYPE_CHECKING:
    from segquant_trt.pipeline.comparison.compare import ComparisonRequest
    from segquant_trt.pipeline.comparison.outputs import Outputs

_FILE = click.Path(path_type=Path)
_STAGE_ONLY = ("force", "forget")
# What `bench RUN` takes as a stage of the pipeline; any other option makes it a comparison.
_OF_THE_STAGE = frozenset(("subjects", "device", "dtype", "threads", "as_json", *_STAGE_ONLY))


class _Lengths(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between them."""

    name = "lengths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers in the order given."""
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,4", param, ctx)


class _Axis(click.ParamType[tuple[str, tuple[int, ...]]]):
    """`NAME=N,N`."""

    name = "axis"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """The axis, and its lengths."""
        name, equals, lengths = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no axis with lengths such as tokens=1024,4096", param, ctx)
        return name, _Lengths().convert(lengths, param, ctx)


class _Shapes(click.ParamType[dict[str, tuple[int, ...]]]):
    """trtexec's `name:1x3x16x16,other:1`."""

    name = "shapes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, tuple[int, ...]]:
        """Shapes by input; an input without a colon's right side is a scalar."""
        found: dict[str, tuple[int, ...]] = {}
        for part in str(value).split(","):
            name, colon, shape = part.rpartition(":")
            if not colon or not name or not re.fullmatch(r"\d+(x\d+)*|scalar", shape):
                self.fail(f"{part!r} is no shape such as sample:2x4x64x64", param, ctx)
            lengths = () if shape == "scalar" else shape.split("x")
            found[name] = tuple(map(int, lengths))
        return found


@click.command("bench")
@click.argument("subjects", metavar="RUN|BUNDLE|ONNX|ENGINE...", nargs=-1, required=True)
@click.option(
    "--against",
    metavar="SUBJECT",
    multiple=True,
    help="Another subject; ratios are relative to the first of these. A path, or KIND:PATH with "
    "float, onnxruntime, openvino, torch, torch-compile, torchao-fp8, or tensorrt-fp16, -fp8, "
    "-int8 (built by TensorRT from the float graph as NVIDIA's ModelOpt prepares it); a KIND alone "
    "means the model of the first subject's run folder.",
)
@click.option("--batch", metavar="N,N", type=_Lengths(), help="Samples per call, one case each.")
@click.option("--height", metavar="N,N", type=_Lengths(), help="Rows of latents, one case each.")
@click.option("--width", metavar="N,N", type=_Lengths(), help="Columns; as rows unless given.")
@click.option(
    "--axis",
    "axes",
    metavar="NAME=N,N",
    type=_Axis(),
    multiple=True,
    help="Lengths of any other axis; may be given again.",
)
@click.option(
    "--shapes",
    metavar="NAME:1x2,...",
    type=_Shapes(),
    help="Shapes of inputs as trtexec takes them, for graphs that say nothing of their axes.",
)
@click.option(
    "--inputs", metavar="FILE", type=_FILE, help="One call's inputs (.safetensors) to time with."
)
@click.option(
    "--iterations",
    metavar="N",
    type=int,
    default=20,
    show_default=True,
    help="Rounds at least; each subject runs once in a round.",
)
@click.option(
    "--duration",
    metavar="SECONDS",
    type=float,
    default=6.0,
    show_default=True,
    help="How long a case is timed, if that makes more rounds.",
)
@click.option(
    "--warmUp",
    "warm_up",
    metavar="MS",
    type=float,
    default=200.0,
    show_default=True,
    help="How long each subject runs before that.",
)
@click.option(
    "--useCudaGraph", "cuda_graphs", is_flag=True, help="Replay an engine's calls as one launch."
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=0,
    show_default=True,
    help="Of the inputs that are made, and of the order of turns.",
)
@click.option(
    "--profile",
    "top",
    metavar="N",
    type=int,
    default=0,
    help="List the N costliest kernels of what ONNX Runtime runs.",
)
@click.option(
    "--memory/--no-memory",
    default=True,
    show_default=True,
    help="Measure peak memory in a process per subject.",
)
@click.option("-o", "--output", "record", metavar="FILE", type=_FILE, help="Write all as JSON.")
@click.option(
    "--exportTimes",
    "times",
    metavar="FILE",
    type=_FILE,
    help="Write every call as trtexec's --exportTimes does, a file per subject and case.",
)
@click.option("--plot", metavar="FILE", type=_FILE, help="Draw latency against quality.")
@click.option("--html", "page", metavar="FILE", type=_FILE, help="Write one HTML page.")
@arguments.machine
@arguments.staged
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Time bundles, ONNX files, engines and torch modules side by side.

    Subjects take turns on the same inputs; ratios are of neighbouring calls, with a 95 %
    interval. A run folder alone is the pipeline's stage: RUN/bundle beside its float model, into
    RUN/benchmark.json.
    """
    named = {
        name for name in given if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    if _is_stage(given["subjects"], named):
        kept = {name: given[name] for name in _OF_THE_STAGE - {"subjects", "as_json"}}
        run_stage("bench", {**kept, "out": Path(given["subjects"][0])}, as_json=given["as_json"])
        return
    alien = [name for name in _STAGE_ONLY if name in named]
    if alien:
        raise SegQuantError(
            f"--{alien[0]} belongs to 'bench RUN', the pipeline's stage",
            hint="a comparison keeps nothing: leave it out, or give a run folder alone",
        )
    _compare(given)


def _is_stage(subjects: tuple[str, ...], named: set[str]) -> bool:
    """One run folder and nothing that a comparison alone has."""
    if len(subjects) != 1 or named - _OF_THE_STAGE:
        return False
    path = Path(subjects[0])
    return path.is_dir() and not (path / "manifest.json").exists()


def _compare(given: dict[str, Any]) -> None:
    from segquant_trt.pipeline.comparison.compare import compare
    from segquant_trt.records.codec import to_plain
    from segquant_trt.report.comparison_table import comparison_text

    request, outputs = _request(given), _outputs(given)
    with StderrProgress() as progress:
        comparison, written = compare(request, outputs, progress=progress)
    files = [str(path) for path in written]
    if given["as_json"]:
        answer({**to_plain(comparison), "written": files}, as_json=True)
        return
    print(comparison_text(comparison))
    for name in files:
        print(f"wrote {name}")


def _request(given: dict[str, Any]) -> ComparisonRequest:
    from segquant_trt.bench.rounds import Effort
    from segquant_trt.pipeline.comparison.compare import ComparisonRequest

    axes = dict(given["axes"])
    axes |= {name: given[name] for name in ("batch", "height", "width") if given[name] is not None}
    return ComparisonRequest(
        subjects=given["subjects"],
        against=given["against"],
        axes=axes,
        shapes=given["shapes"] or {},
        inputs=given["inputs"],
        effort=Effort(
            iterations=given["iterations"],
            duration_s=given["duration"],
            warm_up_ms=given["warm_up"],
            seed=given["seed"],
        ),
        threads=given["threads"],
        device=given["device"],
        dtype=given["dtype"],
        cuda_graphs=given["cuda_graphs"],
        top=given["top"],
        memory=given["memory"],
    )


def _outputs(given: dict[str, Any]) -> Outputs:
    from segquant_trt.pipeline.comparison.outputs import Outputs

    return Outputs(
        record=given["record"], times=given["times"], plot=given["plot"], page=given["page"]
    )
