"""Cost tables of this machine: single sites are timed and priced, and the table is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segquant_trt.errors import SegQuantError
from segquant_trt.records.codec import from_plain, to_plain, write_record
from segquant_trt.records.costs import LOCAL, CostTable, local_table_path, table_path
from segquant_trt.records.files import atomic_write_json, digest_of, writing_failed
from segquant_trt.records.hardware import hardware, hardware_name
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.plan import Target
from segquant_trt.records.progress import Progress, Silent

if TYPE_CHECKING:
    from segquant_trt.bench.costs.fit import Case, EmptyCall

Kind = TypeVar("Kind")
_BUSY = 0.5  # programs that run beside


def measure(
    folder: Path,
    target: Target,
    *,
    budget_s: float,
    threads: int | None,
    progress: Progress | None = None,
) -> tuple[list[Case], EmptyCall, CostTable]:
    """Time what `folder` does not hold yet: the sites, the empty call, and the table of both.

    Args:
        folder: of measured shapes, a file each: an interrupted measurement continues.
        budget_s: seconds of timing, shared by the shapes.
        threads: of the runtime; None for all cores.
    """
    from segquant_trt.backends import backend_for
    from segquant_trt.bench.costs.fit import Case, EmptyCall, fitted
    from segquant_trt.bench.costs.shapes import SHAPES
    from segquant_trt.pipeline.timed_sites import empty_call, price_ms, timed

    progress = progress or Silent()
    share = budget_s / len(SHAPES)
    empty = _kept(
        folder / f"{target}-empty.json",
        EmptyCall,
        partial(empty_call, target, SHAPES[0], threads=threads),
    )
    cases: list[Case] = []
    for done, shape in enumerate(SHAPES):
        progress.update("sites timed", done, len(SHAPES))
        cases += _kept(
            folder / f"{target}-{shape.label}.json",
            list[Case],
            partial(timed, shape, target, budget_s=share, threads=threads),
        )
    progress.update("sites timed", len(SHAPES), len(SHAPES))
    table = fitted(
        cases,
        empty,
        target=target,
        threads=threads or int(hardware()["cores"]),
        versions=backend_for(target).versions(),
        price=price_ms,
    )
    return cases, empty, table


def write_local_table(
    target: Target,
    out: Path | None = None,
    *,
    budget_s: float,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure this machine and write its cost table; the summary says where, and how well it fits.

    Args:
        out: the table; None for where `--costs local` looks for it.
        budget_s: seconds of timing in all.
        threads: of the runtime; None for all cores.

    Raises:
        SegQuantError: an argument is impossible, or the table cannot be written.
    """
    progress = progress or Silent()
    _check(budget_s, threads)
    path = local_table_path(target) if out is None else out
    _note_company(progress)
    with _measured_beside(path, target, threads) as folder:
        kept = sum(1 for _ in folder.glob(f"{target}-*.json"))
        if kept:
            progress.note(f"{folder} holds {kept} finished measurements: only the rest is timed")
        progress.note(
            f"{target}: single sites are timed for {budget_s:.0f} s, longer if large ones are slow"
        )
        cases, empty, table = measure(
            folder, target, budget_s=budget_s, threads=threads, progress=progress
        )
        write_record(path, table)
    return {
        "table": str(path),
        "target": target,
        "hardware": table.hardware,
        "threads": table.threads,
        "versions": table.versions,
        "empty_call_ms": empty.among(cases),
        "cases": len(cases),
        "median_error": table.median_error,
        "used_with": "--costs local" if out is None else f"--costs {path}",
    }


def with_costs_found(options: CompileOptions) -> CompileOptions:
    """The options with the path that `--costs local` means on this machine.

    Raises:
        SegQuantError: this machine has no table of its own for the target.
    """
    if options.costs != LOCAL:
        return options
    return replace(options, costs=table_path(options.target, LOCAL))


def _check(budget_s: float, threads: int | None) -> None:
    if not 0.0 < budget_s < float("inf"):
        raise SegQuantError(
            f"budget is {budget_s:g}; allowed: a positive number of seconds",
            hint="pass --budget with the seconds to measure for; 250 is the default",
        )
    if threads is not None and threads < 1:
        raise SegQuantError(
            f"threads is {threads}; allowed: a whole number from 1",
            hint="leave --threads out to measure with all cores",
        )


def _note_company(progress: Progress) -> None:
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > _BUSY:
        progress.note(
            f"this machine is busy (load {load:.1f}): prices are only right on a quiet one"
        )


@contextmanager
def _measured_beside(path: Path, target: Target, threads: int | None) -> Iterator[Path]:
    """A folder beside `path` for what is measured; it goes when the table is written."""
    from segquant_trt.backends import backend_for

    machine = [hardware_name(), threads or int(hardware()["cores"])]
    key = digest_of([machine, target, backend_for(target).versions()])[:8]
    folder = path.with_name(f".{path.name}-{key}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_failed(path, error) from error
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _kept(path: Path, kind: type[Kind], compute: Callable[[], Kind]) -> Kind:
    """What `path` holds, else what `compute` returns, which is written there."""
    if path.exists():
        try:
            return from_plain(json.loads(path.read_text()), kind, origin=str(path))
        except (OSError, ValueError, SegQuantError) as error:
            raise SegQuantError(
                f"{path} holds no measurement of this version", hint="delete it, and measure again"
            ) from error
    found = compute()
    atomic_write_json(path, to_plain(found))
    return found
