"""Cells of the matrix: one model, one method, one format, on one target."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from benchmarks.ablation.artifact import open_artifact
from benchmarks.ablation.baselines import codes_as_it_runs, quantised
from benchmarks.ablation.cells import cell, found
from benchmarks.ablation.coded import coded_share
from benchmarks.ablation.folded import folded_model
from benchmarks.ablation.full_size import TWIN, large_model, latencies
from benchmarks.ablation.methods import (
    FORMATS,
    TIMED,
    Floor,
    Format,
    Method,
    Own,
    Theirs,
    methods_named,
)
from benchmarks.ablation.quality import Examiner
from benchmarks.ablation.subject import Subject
from benchmarks.ablation.weight_floor import weight_floor
from segquant_trt.models.loop import Denoise
from segquant_trt.pipeline import STAGES, run_stage
from segquant_trt.records import QuantPlan, Target
from segquant_trt.records.codec import read_record, to_plain, write_record
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.rules import Rules

_LAST = "build"
BATCH = 2
"""Samples of one call: an image with guidance."""

_QUIET = 0.1
"""Share of the processor's time that others may use beside a timing."""
_WATCH_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is asked for."""

    model: str
    method: Method
    format: Format
    target: Target

    @property
    def place(self) -> str:
        """Its path among the finished cells, without a suffix."""
        return f"{self.target}/{self.model}/{self.format}/{self.method.name}"


class Matrix:
    """All cells under one folder; what models have in common is made once.

    Processes may share the folder: `prepare` a model in one of them before its cells are asked
    for, and no cell in two.

    Args:
        work: the folder.
        threads: of every runtime; all cores when None.
    """

    def __init__(self, work: Path, threads: int | None = None) -> None:
        self._work = work
        self._threads = threads
        self._examiners: dict[str, Examiner] = {}

    def path(self, wanted: Cell, suffix: str) -> Path:
        """Where something about a cell is kept."""
        return self._work / "cells" / f"{wanted.place}{suffix}"

    def prepare(self, model: str, formats: Collection[Format]) -> None:
        """Make what the cells of these formats share: calibrated runs, answers, folded weights."""
        for bits in sorted({FORMATS[chosen].get("weight_bits", 8) for chosen in formats} | {8}):
            compile_until("plan", self._copied(model, bits), model, self._common(bits))
        if not (self._work / "prepared" / model).exists():
            self._examiner(model).warm_up()
            folded_model(self._subject(model), self._baselines(model) / "folded")
            atomic_write_json(self._work / "prepared" / model, {})

    def quality(self, wanted: Cell) -> dict[str, Any]:
        """Figures of a cell, computed unless they are there."""
        return cell(self.path(wanted, ".json"), lambda: self._computed(wanted))

    def latency(self, model: str, target: Target, *, budget_s: float) -> dict[str, Any]:
        """Latency at full size of the plans of `TIMED`, interleaved with the float model's."""
        place = self._latency_path(model, target)
        return cell(place, lambda: self._timed(model, target, budget_s))

    def finished(self, wanted: Cell) -> dict[str, Any] | None:
        """Figures of a cell that is there."""
        return found(self.path(wanted, ".json"))

    def finished_latency(self, model: str, target: Target) -> dict[str, Any] | None:
        """Latencies that are there."""
        return found(self._latency_path(model, target))

    def _latency_path(self, model: str, target: Target) -> Path:
        return self._work / "cells" / target / model / "latency.json"

    def _computed(self, wanted: Cell) -> dict[str, Any]:
        started, used = time.perf_counter(), _processor_seconds()
        match wanted.method.how:
            case Own():
                figures = self._own(wanted, wanted.method.how)
            case Theirs():
                figures = self._theirs(wanted, wanted.method.how)
            case Floor():
                figures = self._floor(wanted)
            case _:
                assert_never(wanted.method.how)
        return {
            "model": wanted.model,
            "method": wanted.method.name,
            "format": wanted.format,
            "target": wanted.target,
            **figures,
            "seconds": round(time.perf_counter() - started, 1),
            "processor_seconds": round(_processor_seconds() - used, 1),
        }

    def _own(self, wanted: Cell, own: Own) -> dict[str, Any]:
        """The stages from plan to build on a copy of the calibrated run, then the figures."""
        from segquant_trt.serve import load

        options = {**FORMATS[wanted.format], **own.compile_options(wanted.model)}
        run = self._work / "runs" / wanted.place
        shutil.rmtree(run, ignore_errors=True)
        copy_run(self._calibrated(wanted.model, options.get("weight_bits", 8)), run)
        if own.rules:
            options["rules"] = run.with_suffix(".rules.yaml")
            write_record(options["rules"], Rules(rules=own.rules))
        options |= {"target": wanted.target, "threads": self._threads}
        compile_until(_LAST, run, wanted.model, options)
        plan = read_record(run / "plan.yaml", QuantPlan)
        write_record(self.path(wanted, ".plan.yaml"), plan)
        coded = {site.site: not site.treatment.is_float for site in plan.sites}
        bundle = load(run / "bundle", threads=self._threads)
        manifest = bundle.manifest
        figures = self._figures(wanted, bundle.run)
        shutil.rmtree(run)
        return {
            **figures,
            "macs_integer_share": manifest.macs_integer_share,
            "macs_coded_share": self._subject(wanted.model).share(coded),
            "size_bytes": manifest.size_bytes_quantized,
            "size_bytes_float": manifest.size_bytes_float,
            "treatments": dict(Counter(site.treatment.label for site in plan.sites)),
            "prediction": None if plan.prediction is None else asdict(plan.prediction),
        }

    def _theirs(self, wanted: Cell, theirs: Theirs) -> dict[str, Any]:
        subject = self._subject(wanted.model)
        artifact = quantised(theirs.baseline, subject, self._baselines(wanted.model))
        opened = open_artifact(artifact, subject, threads=self._threads)
        # Nothing tells of kernels that code activations as they come: they bear the float's names.
        untold = codes_as_it_runs(theirs.baseline)
        return {
            **self._figures(wanted, opened.denoise),
            "macs_integer_share": None if untold else opened.macs_integer_share,
            "macs_coded_share": coded_share(artifact, subject),
            "size_bytes": artifact.size_bytes,
            "size_bytes_float": subject.spec.size_bytes_float,
            "runtime": artifact.runtime,
        }

    def _floor(self, wanted: Cell) -> dict[str, Any]:
        denoise = weight_floor(self._subject(wanted.model), threads=self._threads)
        return self._figures(wanted, denoise)

    def _figures(self, wanted: Cell, denoise: Denoise) -> dict[str, Any]:
        examiner = self._examiner(wanted.model)
        return asdict(examiner.figures(denoise, judged=wanted.method.judged))

    def _timed(self, model: str, target: Target, budget_s: float) -> dict[str, Any]:
        facts = self._subject(model).facts
        plans = {}
        for method in methods_named(list(TIMED)):
            one = Cell(model=model, method=method, format="W8A8", target=target)
            self.quality(one)
            plans[method.name] = read_record(self.path(one, ".plan.yaml"), QuantPlan)
        folder = self._work / "large" / model.removesuffix(TWIN)
        large = large_model(model, folder, batch=BATCH)
        busy = [_busy_share()]
        measured = latencies(
            large,
            {name: (plans[name], facts) for name in TIMED},
            budget_s=budget_s,
            threads=self._threads,
        )
        busy.append(_busy_share())
        return {
            "model": model,
            "target": target,
            "latency_batch": BATCH,
            "shapes": {name: list(array.shape) for name, array in large.inputs.items()},
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "busy_before_and_after": busy,
            "quiet": max(busy) < _QUIET,
            "variants": {name: asdict(figure) for name, figure in measured.items()},
            "predictions": {name: to_plain(plans[name].prediction) for name in TIMED},
        }

    def _examiner(self, model: str) -> Examiner:
        """Only one is kept: cells come model by model, and float answers fill memory."""
        if model not in self._examiners:
            subject = self._subject(model)
            answers = self._work / "float-answers"
            self._examiners = {model: Examiner(subject, answers, threads=self._threads)}
        return self._examiners[model]

    def _subject(self, model: str) -> Subject:
        return Subject.of(self._calibrated(model, 8))

    def _calibrated(self, model: str, bits: int) -> Path:
        """A run that is calibrated, analysed, scored for these weights, and has a plain plan."""
        return self._work / "calibrated" / f"{model}-w{bits}"

    def _baselines(self, model: str) -> Path:
        return self._work / "baselines" / model

    def _copied(self, model: str, bits: int) -> Path:
        """The same before it is made; other widths begin with what eight bits have in common."""
        run = self._calibrated(model, bits)
        if bits != 8 and not run.exists():
            copy_run(self._calibrated(model, 8), run)
        return run

    def _common(self, bits: int) -> dict[str, Any]:
        return {"weight_bits": bits, "preset": "plain", "threads": self._threads}


def compile_until(last: str, run: Path, model: str, options: Mapping[str, Any]) -> None:
    """Bring the stages of `segquant-trt compile zoo:MODEL -o RUN` up to date, up to `last`."""
    chosen = CompileOptions.from_keywords(f"zoo:{model}", run, **options)
    for stage in STAGES:
        run_stage(stage.name, chosen)
        if stage.name == last:
            return
    raise AssertionError(f"there is no stage {last}")


def _processor_seconds() -> float:
    """What this process and its ended children have used: of use on a busy machine."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _busy_share() -> float:
    """Share of the processor's time that is used while this process sleeps."""
    import psutil

    return round(psutil.cpu_percent(interval=_WATCH_S) / 100, 3)


def copy_run(run: Path, copy: Path) -> None:
    """Copy a run folder, but not its lock, which would be held for both."""
    shutil.copytree(run, copy, copy_function=_linked, ignore=shutil.ignore_patterns(".lock"))


def _linked(source: str, target: str) -> None:
    """Stages replace files and never write into them, so copies may share their bytes."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
