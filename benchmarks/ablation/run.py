"""The ablation: models x methods x formats.

    python -m benchmarks.ablation.run --work DIR --jobs 2     # quality
    python -m benchmarks.ablation.run --work DIR --latency    # latency at full size, alone

Every finished cell is a file under DIR, so that an interrupted run goes on where it was. Writes
what is finished to benchmarks/results/ablation.json, draws ablation.png, and puts the tables into
both READMEs. A cell that fails is named and left out, and the exit status is 1; the next run tries
it again. DIR holds figures of the code that made them: take a fresh one for other code.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.ablation.chart import draw
from benchmarks.ablation.matrix import Cell, Matrix
from benchmarks.ablation.methods import FORMATS, METHODS, Format, Method, methods_named
from benchmarks.ablation.tables import write_tables
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.models.zoo import ZOO, zoo_path
from segquant_trt.records import CPU_TARGETS, Target
from segquant_trt.records.child import die_with_parent
from segquant_trt.records.files import atomic_write_json

RESULTS = Path(__file__).parents[1] / "results"
_TOOLS = ("nvidia-modelopt", "nncf")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_matrix: Matrix | None = None


@dataclass(slots=True)
class Log:
    """Says what is done and remembers what failed, by name."""

    total: int
    started: float = field(default_factory=time.monotonic)
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def tell(self, name: str, failure: str | None) -> None:
        """One more has ended."""
        self.done += 1
        minutes = (time.monotonic() - self.started) / 60
        print(f"{minutes:5.1f} min {self.done}/{self.total} {name}", file=sys.stderr, flush=True)
        if failure is not None:
            self.failed[name] = failure.strip().splitlines()[-1]
            print(f"failed, left out: {name}\n{failure}", file=sys.stderr, flush=True)


def cells(
    models: Iterable[str], methods: Sequence[Method], formats: Sequence[Format], target: Target
) -> list[Cell]:
    """Every combination that exists, model by model."""
    return [
        Cell(model=model, method=method, format=chosen, target=target)
        for model in models
        for chosen in formats
        for method in methods
        if chosen in method.formats
    ]


def compute(work: Path, wanted: Sequence[Cell], jobs: int) -> dict[str, str]:
    """Bring all cells up to date in `jobs` processes of one thread each.

    Returns:
        What failed, and the last line of why.
    """
    needed: dict[str, set[Format]] = {}
    for one in wanted:
        needed.setdefault(one.model, set()).add(one.format)
    for model in needed:
        zoo_path(model)  # an outlier twin is generated once, here
    log = Log(total=len(needed) + len(wanted))
    with processes(work, jobs) as pool:
        each(pool, log, {model: (_prepare, model, tuple(f)) for model, f in needed.items()})
        ready = [one for one in wanted if one.model not in log.failed]
        log.total -= len(wanted) - len(ready)
        each(pool, log, {one.place: (_quality, one) for one in ready})
    return log.failed


def processes(work: Path, jobs: int) -> ProcessPoolExecutor:
    """Fresh processes with a matrix of their own, which end with this one."""
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, _start, (work, os.getpid()))


def each(pool: ProcessPoolExecutor, log: Log, tasks: Mapping[str, tuple[Any, ...]]) -> None:
    """Run every task, a function and its arguments, in the order given, and log how it ended."""
    names = {pool.submit(_told, *task): name for name, task in tasks.items()}
    for future in as_completed(names):
        error = future.exception()  # of the pool: a process was killed
        log.tell(names[future], future.result() if error is None else repr(error))


def _start(work: Path, parent: int) -> None:
    global _matrix
    die_with_parent(parent)
    _matrix = Matrix(work, threads=1)


def _told(task: Callable[..., Any], *arguments: Any) -> str | None:
    """Why the task failed; None if it did not."""
    try:
        task(*arguments)
    except Exception:  # other people's tools raise anything
        return traceback.format_exc(limit=3)
    return None


def _prepare(model: str, formats: tuple[Format, ...]) -> None:
    assert _matrix is not None
    _matrix.prepare(model, formats)


def _quality(wanted: Cell) -> None:
    assert _matrix is not None
    _matrix.quality(wanted)


def time_all(work: Path, models: Iterable[str], target: Target, budget_s: float) -> dict[str, str]:
    """Latency at full size, one model after the other, with all cores."""
    matrix = Matrix(work)
    names = list(models)
    log = Log(total=len(names))
    for model in names:
        timing = partial(matrix.latency, model, target, budget_s=budget_s)
        log.tell(f"{model}, latency", _told(timing))
    return log.failed


def record(work: Path, wanted: Sequence[Cell], failed: dict[str, str]) -> dict[str, Any]:
    """What is finished of these cells, and the latencies of their models."""
    matrix = Matrix(work)
    targets = list(dict.fromkeys((one.model, one.target) for one in wanted))
    return {
        "hardware": hardware(),
        "versions": versions() | _versions_of_tools(),
        "failed": failed,
        "rows": [row for one in wanted if (row := matrix.finished(one)) is not None],
        "latencies": [
            found for pair in targets if (found := matrix.finished_latency(*pair)) is not None
        ],
    }


def _versions_of_tools() -> dict[str, str]:
    """Of those that are installed: redrawing tables needs none."""
    found = {}
    for tool in _TOOLS:
        with suppress(metadata.PackageNotFoundError):
            found[tool] = metadata.version(tool)
    return found


def main() -> int:
    """Compute what is missing, then tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--target", choices=CPU_TARGETS, default="onnxruntime")
    parser.add_argument("--latency", action="store_true", help="time plans instead, at full size")
    parser.add_argument("--budget", type=float, default=150.0, help="seconds per model's timing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    methods = methods_named(arguments.methods)
    wanted = cells(arguments.models, methods, arguments.formats, arguments.target)
    if arguments.latency:
        failed = time_all(arguments.work, arguments.models, arguments.target, arguments.budget)
    else:
        failed = compute(arguments.work, wanted, arguments.jobs)
    found = record(arguments.work, wanted, failed)
    atomic_write_json(arguments.results / "ablation.json", found)
    draw(found, arguments.results / "ablation.png")
    if arguments.results == RESULTS:
        write_tables(found)
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
