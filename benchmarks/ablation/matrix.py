"""Cells of the matrix: one model, one method, one format, on one target."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import assert_never

from benchmarks.ablation.artifact import open_artifact
from benchmarks.ablation.baselines import quantised
from benchmarks.ablation.cells import cell
from benchmarks.ablation.full_size import large_model, latencies
from benchmarks.ablation.methods import FORMATS, Format, Method, Own, Theirs
from benchmarks.ablation.quality import Examiner
from benchmarks.ablation.subject import Subject
from segquant_trt.pipeline import STAGES, run_stage
from segquant_trt.records import GraphFacts, QuantPlan, Target
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.rules import Rules

_LAST = "build"
_TWIN = "-outliers"


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
    """All cells under one folder; what models have in common is made once."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._examiners: dict[str, Examiner] = {}

    def path(self, wanted: Cell, suffix: str) -> Path:
        """Where something about a cell is kept."""
        return self._work / "cells" / f"{wanted.place}{suffix}"

    def quality(self, wanted: Cell) -> dict[str, Any]:
        """Figures of a cell, computed unless they are there."""
        return cell(self.path(wanted, ".json"), lambda: self._computed(wanted))

    def latency(self, wanted: Cell, plain: Cell, *, budget_s: float) -> dict[str, Any]:
        """Latency at full size of an own method's plan, beside the float model and `plain`."""
        return cell(
            self.path(wanted, ".latency.json"), lambda: self._timed(wanted, plain, budget_s)
        )

    def _computed(self, wanted: Cell) -> dict[str, Any]:
        started = time.perf_counter()
        match wanted.method.how:
            case Own():
                found = self._own(wanted, wanted.method.how)
            case Theirs():
                found = self._theirs(wanted, wanted.method.how)
            case _:
                assert_never(wanted.method.how)
        return {
            "model": wanted.model,
            "method": wanted.method.name,
            "format": wanted.format,
            "target": wanted.target,
            **found,
            "seconds": round(time.perf_counter() - started, 1),
        }

    def _own(self, wanted: Cell, own: Own) -> dict[str, Any]:
        """The stages from plan to build on a copy of the calibrated run, then the figures."""
        from segquant_trt.serve import load

        options = {**FORMATS[wanted.format], **own.options}
        base = self._calibrated(wanted.model, options)
        run = self._work / "runs" / wanted.place
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(base, run, copy_function=_linked)
        if own.rules:
            options["rules"] = run.with_suffix(".rules.yaml")
            write_record(options["rules"], Rules(rules=own.rules))
        compile_until(_LAST, run, wanted.model, {**options, "target": wanted.target})
        plan = read_record(run / "plan.yaml", QuantPlan)
        write_record(self.path(wanted, ".plan.yaml"), plan)
        bundle = load(run / "bundle")
        manifest = bundle.manifest
        figures = self._examiner(wanted.model).figures(bundle.run)
        shutil.rmtree(run)
        return {
            **asdict(figures),
            "macs_integer_share": manifest.macs_integer_share,
            "size_bytes": manifest.size_bytes_quantized,
            "size_bytes_float": manifest.size_bytes_float,
            "treatments": dict(Counter(site.treatment.label for site in plan.sites)),
            "prediction": None if plan.prediction is None else asdict(plan.prediction),
        }

    def _theirs(self, wanted: Cell, theirs: Theirs) -> dict[str, Any]:
        subject = Subject.of(self._calibrated(wanted.model, {}))
        artifact = quantised(theirs.baseline, subject, self._work / "baselines" / wanted.model)
        opened = open_artifact(artifact, subject)
        return {
            **asdict(self._examiner(wanted.model).figures(opened.denoise)),
            "macs_integer_share": opened.macs_integer_share,
            "size_bytes": artifact.size_bytes,
            "size_bytes_float": subject.spec.size_bytes_float,
            "runtime": artifact.runtime,
        }

    def _timed(self, wanted: Cell, plain: Cell, budget_s: float) -> dict[str, Any]:
        base = read_record(self._calibrated(wanted.model, {}) / "facts.yaml", GraphFacts)
        plans = {
            "plain": read_record(self.path(plain, ".plan.yaml"), QuantPlan),
            "candidate": read_record(self.path(wanted, ".plan.yaml"), QuantPlan),
        }
        name = wanted.model.removesuffix(_TWIN)
        model = large_model(name, self._work / "large" / name, batch=2)
        found = latencies(
            model, {key: (plan, base) for key, plan in plans.items()}, budget_s=budget_s
        )
        return {key: asdict(figure) for key, figure in found.items()}

    def _examiner(self, model: str) -> Examiner:
        if model not in self._examiners:
            subject = Subject.of(self._calibrated(model, {}))
            self._examiners[model] = Examiner(subject, self._work / "float-answers")
        return self._examiners[model]

    def _calibrated(self, model: str, options: Mapping[str, Any]) -> Path:
        """A run that is calibrated, analysed, scored for these weights, and has a plain plan."""
        bits = options.get("weight_bits", 8)
        run = self._work / "calibrated" / f"{model}-w{bits}"
        if not run.exists() and bits != 8:
            shutil.copytree(self._calibrated(model, {}), run, copy_function=_linked)
        compile_until("plan", run, model, {"weight_bits": bits, "preset": "plain"})
        return run


def compile_until(last: str, run: Path, model: str, options: Mapping[str, Any]) -> None:
    """Bring the stages of `segquant-trt compile zoo:MODEL -o RUN` up to date, up to `last`."""
    chosen = CompileOptions.from_keywords(f"zoo:{model}", run, **options)
    for stage in STAGES:
        run_stage(stage.name, chosen)
        if stage.name == last:
            return
    raise AssertionError(f"there is no stage {last}")


def _linked(source: str, target: str) -> None:
    """Stages replace files and never write into them, so copies may share their bytes."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
