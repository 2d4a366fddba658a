"""Builds engines in this very process: only ever called in a child, which may crash or hang.

Found by running TensorRT-RTX 1.7.1: a process keeps the first logger that it was given; errors of
the parser come with the node, those of the builder only as lines of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from segquant_trt.errors import SegQuantError

OnStep = Callable[[int, int], None]
_LETTERS = "FEWIV"  # of the severities, 0 to 4
_ERROR, _WARNING = 1, 2
_REFUSED = (
    "graphs that it builds come from plans whose target is 'tensorrt-rtx'; if this is one of them, "
    "keep the named site in float and report the message"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """`shapes`: per profile and input its three shapes. `origin`: where external data is sought."""

    model: Path
    origin: Path
    shapes: Sequence[Mapping[str, Sequence[Sequence[int]]]]
    plugins: Sequence[Path]


def make_logger(trt: Any) -> Any:
    """The process's logger; set its `stream` before each build."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.stream: IO[str] | None = None
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= _ERROR:
                self.errors.append(message)
            if self.stream is not None:
                self.stream.write(f"[{_LETTERS[int(severity)]}] {message}\n")
                if int(severity) <= _WARNING:
                    self.stream.flush()  # a crash must not lose them

    return Log()


def build_in_process(
    trt: Any, log: Any, job: BuildJob, capability: str, on_step: OnStep
) -> tuple[bytes, float]:
    """Parse and build; the engine and the seconds that it took.

    `capability`: one, or several that the engine is to run on, as "sm_86+sm_89".

    Raises:
        SegQuantError: quoting the first error of the parser or builder.
    """
    started = time.perf_counter()
    log.errors.clear()
    builder = trt.Builder(log)
    for library in job.plugins:
        _load(builder, log, library)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(job.model.read_bytes(), str(job.origin)):
        raise _parse_error(parser, log, job.model)
    config = builder.create_builder_config()
    members = [getattr(trt.ComputeCapability, _member(each)) for each in capability.split("+")]
    config.num_compute_capabilities = len(members)
    for index, member in enumerate(members):
        config.set_compute_capability(member, index)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for shapes in job.shapes:
        _add_profile(builder, config, shapes)
    config.progress_monitor = monitor = _monitor(trt, on_step)
    engine = builder.build_serialized_network(network, config)
    del monitor
    if engine is None:
        raise _build_error(log, capability)
    return bytes(engine), time.perf_counter() - started


def _load(builder: Any, log: Any, library: Path) -> None:
    if builder.get_plugin_registry().load_library(str(library)) is None:
        reason = _cause(log.errors[0]) if log.errors else "no reason given"
        raise SegQuantError(
            f"TensorRT-RTX cannot load the plugin library {library}: {reason}",
            hint="check the path, and that it was compiled for TensorRT-RTX and this machine",
        )


def _member(capability: str) -> str:
    return capability.replace("_", "").upper()


def _add_profile(builder: Any, config: Any, shapes: Mapping[str, Sequence[Sequence[int]]]) -> None:
    profile = builder.create_optimization_profile()
    for name, (minimum, optimum, maximum) in shapes.items():
        profile.set_shape(name, minimum, optimum, maximum)
    config.add_optimization_profile(profile)


def _monitor(trt: Any, on_step: OnStep) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Steps of the outermost phase; those within it differ by network."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            if name in self._steps:
                on_step(step + 1, self._steps[name])
            return True

        def phase_finish(self, name: str) -> None:
            steps = self._steps.pop(name, None)
            if steps is not None:
                on_step(steps, steps)

    return Monitor()


def _parse_error(parser: Any, log: Any, model: Path) -> SegQuantError:
    if parser.num_errors == 0:
        reason = _cause(log.errors[0]) if log.errors else "no reason given"
        return SegQuantError(f"TensorRT-RTX cannot read {model}: {reason}", hint=_REFUSED)
    error = parser.get_error(0)
    where = f" at node '{error.node_name()}' ({error.node_operator()})" if error.node_name() else ""
    return SegQuantError(
        f"TensorRT-RTX refuses the graph{where}: {_cause(error.desc())}", hint=_REFUSED
    )


def _build_error(log: Any, capability: str) -> SegQuantError:
    reason = _cause(log.errors[0]) if log.errors else "the builder gave no reason"
    return SegQuantError(
        f"TensorRT-RTX cannot build the graph for {capability}: {reason}", hint=_REFUSED
    )


def _cause(message: str) -> str:
    """The line that says why: others name the node again, or that there is no GPU."""
    lines = [line.strip() for line in message.split("\n") if line.strip()]
    telling = [line for line in lines if not line.startswith("Invalid Node")]
    telling = [line for line in telling if "cudaError" not in line]
    return next(iter([*telling, *lines]), "no reason given")
