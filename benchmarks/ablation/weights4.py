"""What four-bit weights lose, and what wins it back, at equal granularity and bytes.

    python -m benchmarks.ablation.weights4 --work DIR [--models ...] [--formats ...]

Every row has the sites and the activation codes of the preset `plain` except for what its name
says: W4A8 has one weight scale per output channel and one static scale per input, W4A16 has blocks
of 32 under float activations. `auto` rows are the planner's own, at full-size prices and without
trials. Gains are over the best of the rows that round to nearest: with full ranges, with ranges of
least squared error, and with errors weighed by the energy of their input (what the option
`--weight-scales mse` does). Finished cells lie under DIR. Writes benchmarks/results/weights4.json
and prints the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.ablation.cells import cell
from benchmarks.ablation.full_size import cost_scale
from benchmarks.ablation.matrix import compile_until
from benchmarks.ablation.quality import Conditions, Examiner
from benchmarks.ablation.subject import Subject
from segquant_trt.backends import backend_for
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models.loop import Denoise
from segquant_trt.models.zoo import ZOO
from segquant_trt.pipeline.asking import plan_request_of
from segquant_trt.plan import Digests, PlanRequest, make_plan
from segquant_trt.records import (
    CPU_TARGETS,
    GraphFacts,
    QuantPlan,
    SitePlan,
    Static,
    Target,
    WeightPlan,
)
from segquant_trt.records.costs import cost_table
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.scores import OptionScore, Scores, SiteScore, read_arrays, read_scores
from segquant_trt.records.stage import Work
from segquant_trt.rewrite import rewrite
from segquant_trt.score import ScoreRequest, score

Format = Literal["W4A8", "W4A16"]

RESULT = Path(__file__).parents[1] / "results" / "weights4.json"
NEAREST = "nearest"
"""How the names of the rows begin that gains are measured from."""

FORMATS: Mapping[Format, Mapping[str, Any]] = {
    "W4A8": {"weight_bits": 4},
    "W4A16": {"weight_bits": 4, "weight_only": True},
}
"""Fields of CompileOptions that make a format."""

_ABSMAX = WeightPlan(bits=4, scale_method="absmax")
_MSE = WeightPlan(bits=4, scale_method="mse")
_GPTQ = WeightPlan(bits=4, rounding="gptq", scale_method="mse")
_SEEDS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Plain activations, smoothed wherever there is a divisor if `smoothed`; weights so.

    `weighed`: scales are those that were searched with the inputs' energies; else they are
    searched anew without.
    """

    weight: WeightPlan
    smoothed: bool = False
    weighed: bool = True

    def is_met(self, option: OptionScore) -> bool:
        """Whether an option is one of these, the divisor aside."""
        treatment, weight = option.treatment, option.treatment.weight
        return (
            option.ranges is None
            and len(treatment.segments) == 1
            and isinstance(treatment.segments[0].factor, Static)
            and treatment.segments[0].activation.kind in ("symmetric", "shifted", "keep_float")
            and weight is not None
            and weight.rounding == self.weight.rounding
            and weight.scale_method == self.weight.scale_method
        )


Method = Fixed | str  # the objective of `auto`

METHODS: Mapping[str, tuple[Method, tuple[Format, ...]]] = {
    "nearest, full ranges": (Fixed(weight=_ABSMAX), ("W4A8", "W4A16")),
    "nearest, MSE ranges": (Fixed(weight=_MSE, weighed=False), ("W4A8", "W4A16")),
    "nearest, weighed MSE ranges": (Fixed(weight=_MSE), ("W4A8", "W4A16")),
    "+ smoothing": (Fixed(weight=_MSE, smoothed=True), ("W4A8",)),
    "+ GPTQ": (Fixed(weight=_GPTQ), ("W4A8", "W4A16")),
    "+ GPTQ + smoothing": (Fixed(weight=_GPTQ, smoothed=True), ("W4A8",)),
    "auto, speed": ("speed", ("W4A8",)),
    "auto, balanced": ("balanced", ("W4A8",)),
    "auto, quality": ("quality", ("W4A8",)),
}


class Bench:
    """Makes and examines plans; what models have in common is made once.

    Args:
        work: folder of calibrated runs, scores and finished cells.
        target: that executes the plans.
        threads: of every runtime.
    """

    def __init__(self, work: Path, target: Target, threads: int) -> None:
        self._work = work
        self._target = target
        self._threads = threads
        self._examiners: dict[str, Examiner] = {}

    def row(self, model: str, chosen: Format, name: str) -> dict[str, Any]:
        """Figures of one cell, computed unless they are there."""
        place = self._work / "cells" / self._target / model / chosen / f"{name}.json"
        return cell(place, lambda: self._computed(model, chosen, name))

    def _computed(self, model: str, chosen: Format, name: str) -> dict[str, Any]:
        subject, scored = self._subject(model), self._scores(model, chosen)
        method = METHODS[name][0]
        objective = {} if isinstance(method, Fixed) else {"objective": method}
        options = CompileOptions.from_keywords(
            f"zoo:{model}",
            subject.run,
            target=self._target,
            preset="plain" if isinstance(method, Fixed) else "auto",
            weight_scales="mse",
            cost_scale=cost_scale(model),
            **FORMATS[chosen],
            **objective,
        )
        work = Work(run=RunFolder(subject.run), options=options, progress=Silent())
        scores, request = read_scores(scored), plan_request_of(work, subject.facts, options)
        digests = Digests(facts="", calibration="", scores="")
        plan = make_plan(subject.facts, scores, cost_table(self._target, None), request, digests)
        if isinstance(method, Fixed):
            plan = with_fixed(plan, scores, request, subject.facts, method)
        expected: float | None = expected_db(plan, scores, request)
        if isinstance(method, Fixed) and not method.weighed:
            plan, expected = rounded_anew(plan), None
        return {
            "model": model,
            "format": chosen,
            "method": name,
            "target": self._target,
            **self._examined(subject, model, plan, scored),
            "expected_sqnr_db_mean": expected,
        }

    def _examined(
        self, subject: Subject, model: str, plan: QuantPlan, scored: Path
    ) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "quantized.onnx"
            arrays = read_arrays(scored, scored_keys(scored))
            rewrite(
                subject.run / "model.onnx",
                subject.weights,
                subject.facts,
                plan,
                out,
                arrays=arrays,
                timestep=subject.spec.timestep,
            )
            weights = out.with_suffix(".weights").stat().st_size
            size = weights + out.stat().st_size
            runner = backend_for(self._target).open(out, threads=self._threads)
            output = load_graph(out).graph.output[0].name
            denoise: Denoise = lambda inputs: np.asarray(  # noqa: E731
                runner.run(inputs, [output])[output], dtype=np.float32
            )
            figures = asdict(self._examiner(model).figures(denoise, judged=False))
        kept = ("sqnr_db_mean", "sqnr_db_worst", "latent_sqnr_db", "latent_sqnr_db_stderr")
        return {
            **{key: round(figures[key], 3) for key in kept},
            "size_bytes": size,
            "size_bytes_weights": weights,
        }

    def _subject(self, model: str) -> Subject:
        """A calibrated and analysed run, with a plan that says where the work is."""
        run = self._work / "runs" / f"{model}"
        if not (run / "plan.yaml").exists():
            compile_until("plan", run, model, {"preset": "plain", "threads": self._threads})
        return Subject.of(run)

    def _scores(self, model: str, chosen: Format) -> Path:
        path = self._work / "scored" / model / chosen / "scores.safetensors"
        if not path.exists():
            subject = self._subject(model)
            options = CompileOptions.from_keywords(f"zoo:{model}", subject.run, **FORMATS[chosen])
            score(
                subject.run,
                subject.weights,
                subject.spec,
                subject.facts,
                ScoreRequest(
                    weight_bits=(4,),
                    weight_block=options.block(),
                    weight_only=options.weight_only,
                    threads=self._threads,
                ),
                on_progress=lambda label, done, total: None,
                on_note=lambda text: print(text, file=sys.stderr),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            (subject.run / "scores.safetensors").replace(path)
        return path

    def _examiner(self, model: str) -> Examiner:
        if model not in self._examiners:
            conditions = Conditions(seeds=_SEEDS, judged=_SEEDS)
            answers = self._work / "float-answers"
            self._examiners = {
                model: Examiner(self._subject(model), answers, conditions, threads=self._threads)
            }
        return self._examiners[model]


def with_fixed(
    plan: QuantPlan, scores: Scores, request: PlanRequest, facts: GraphFacts, method: Fixed
) -> QuantPlan:
    """`plan` with the treatment of every coded site replaced, groups alike, by least noise."""
    sites = {site.name: site for site in facts.sites}
    planned = {entry.site: entry for entry in plan.sites if not entry.treatment.is_float}
    groups: dict[str, list[SiteScore]] = {}
    for own in scores.sites:
        if own.site in planned:
            groups.setdefault(own.group, []).append(own)
    changed: dict[str, SitePlan] = {}
    for members in groups.values():

        def noise(index: int, members: list[SiteScore] = members) -> float:
            return float(sum(np.mean(own.options[index].noise) for own in members))

        fitting = [
            index
            for index in range(len(members[0].options))
            if all(method.is_met(own.options[index]) for own in members)
            and all(request.allows(sites[own.site], own, own.options[index]) for own in members)
        ]
        smoothed = [i for i in fitting if members[0].options[i].treatment.smoothing is not None]
        plain = [i for i in fitting if members[0].options[i].treatment.smoothing is None]
        best = min(smoothed if method.smoothed and smoothed else plain, key=noise)
        for own in members:
            treatment = own.options[best].treatment
            changed[own.site] = replace(planned[own.site], treatment=treatment)
    return replace(plan, sites=tuple(changed.get(entry.site, entry) for entry in plan.sites))


def rounded_anew(plan: QuantPlan) -> QuantPlan:
    """Weights as their plans say, made from the weights alone: no scored codes."""
    return replace(plan, sites=tuple(_rounded_anew(entry) for entry in plan.sites))


def _rounded_anew(entry: SitePlan) -> SitePlan:
    treatment = entry.treatment
    if treatment.weight is None:
        return entry
    weight = replace(treatment.weight, codes=None)
    return replace(entry, treatment=replace(treatment, weight=weight))


def expected_db(plan: QuantPlan, scores: Scores, request: PlanRequest) -> float:
    """Predicted SQNR per step of any plan of scored treatments."""
    by_site = {own.site: own for own in scores.sites}
    noise = np.zeros(max(len(scores.bin_edges), 1))
    for entry in plan.sites:
        if entry.treatment.is_float:
            continue
        own = by_site[entry.site]
        (first, *_) = [o for o in own.options if o.treatment == entry.treatment]
        noise += np.asarray(first.noise) + np.asarray(request.output_noise(own, first))
    return round(float(np.mean(-10.0 * np.log10(np.maximum(noise, 1e-20)))), 2)


def scored_keys(path: Path) -> list[str]:
    """All arrays of a file of scores."""
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        return list(file.keys())


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; gains are over the best rounding to nearest of the same model and format."""
    base: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["model"], row["format"]
        best = base.get(key)
        if row["method"].startswith(NEAREST) and (
            best is None or row["latent_sqnr_db"] > best["latent_sqnr_db"]
        ):
            base[key] = row
    lines = [
        "| model | format | weights | latent SQNR | over nearest | per step (expected) "
        "| weights' bytes, with the graph's |",
        "|-|-|-|-:|-:|-:|-:|",
    ]
    for row in rows:
        own = base[row["model"], row["format"]]
        lines.append(
            f"| {row['model']} | {row['format']} | {row['method']} "
            f"| {row['latent_sqnr_db']:.1f} ± {row['latent_sqnr_db_stderr']:.1f} dB "
            f"| {row['latent_sqnr_db'] - own['latent_sqnr_db']:+.1f} dB "
            f"| {row['sqnr_db_mean']:.1f} ({_decibels(row['expected_sqnr_db_mean'])}) dB "
            f"| {row['size_bytes_weights'] / own['size_bytes_weights']:.3f}x, "
            f"{row['size_bytes'] / own['size_bytes']:.3f}x |"
        )
    return "\n".join(lines)


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main(report: Callable[[str], None] = print) -> None:
    """Compute what is missing, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--target", choices=CPU_TARGETS, default="onnxruntime")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    bench = Bench(arguments.work, arguments.target, arguments.threads)
    rows = []
    for model in arguments.models:
        for chosen in arguments.formats:
            for name, (_, formats) in METHODS.items():
                if chosen in formats:
                    print(model, chosen, name, file=sys.stderr, flush=True)
                    rows.append(bench.row(model, chosen, name))
    record = {"hardware": hardware(), "versions": versions(), "seeds": _SEEDS, "rows": rows}
    atomic_write_json(arguments.result, record)
    report(table(rows))


if __name__ == "__main__":
    main()
