"""Bring the stages of a run folder up to date."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from segquant_trt.pipeline.costs import with_costs_found
from segquant_trt.pipeline.planning import refuse_idle_limits
from segquant_trt.pipeline.stages import PRODUCERS, STAGES
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Progress, Silent
from segquant_trt.records.remembered import REMEMBERED, recall, remember
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import CompileResult, Stage, Work, settle


def compile_model(options: CompileOptions, *, progress: Progress | None = None) -> CompileResult:
    """Run every stage that is not up to date.

    Raises:
        SegQuantError: whatever keeps a stage from finishing.
    """
    refuse_idle_limits(options)
    return _run(STAGES, options, progress or Silent(), told=REMEMBERED)


def run_stage(
    stage: str,
    options: CompileOptions,
    *,
    progress: Progress | None = None,
    given: Collection[str] | None = None,
) -> CompileResult:
    """Run one stage; the stages before it must have run.

    With `given`, options that it does not name are those that the folder was told before.

    Raises:
        SegQuantError: an input is missing, or whatever keeps the stage from finishing.
    """
    row = next(row for row in STAGES if row.name == stage)
    progress = progress or Silent()
    if given is not None:
        options = recall(options, row.reads, given=given, progress=progress)
    if "preset" in row.reads:
        refuse_idle_limits(options, given)
    return _run((row,), options, progress, told=row.reads)


def compile(model: Any, *, out: str | Path, **options: Any) -> CompileResult:
    """Compile a named or loaded model into `out`; keywords are the fields of CompileOptions.

    Raises:
        SegQuantError: a bad option, or whatever keeps a stage from finishing.
    """
    from segquant_trt.models.saved import named_model

    asked = with_costs_found(CompileOptions.from_keywords(None, out, **options))
    asked.check_files()
    return compile_model(replace(asked, model=named_model(model, asked.out / "source")))


def _run(
    rows: tuple[Stage, ...], options: CompileOptions, progress: Progress, *, told: Collection[str]
) -> CompileResult:
    from segquant_trt.report.summary import summarize

    options = with_costs_found(options)
    options.check_files()
    run = RunFolder(options.out)
    work = Work(run=run, options=options, progress=progress)
    skipped: list[str] = []
    with run.locked():
        for row in rows:
            run.require(row.inputs, stage=row.name, producers=PRODUCERS)
            if settle(row, work, forced=options.force):
                skipped.append(row.name)
            remember(options, told)
        if len(skipped) == len(rows):
            progress.note(f"nothing to do: {run.path} is up to date")
        return CompileResult(run=run.path, summary=summarize(run.path), skipped=tuple(skipped))
