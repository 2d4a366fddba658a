"""What plans were expected to reach beside what they reach, on seeds that nothing has seen.

    python -m benchmarks.ablation.predictions RUN... [--weight-bits 4] [--json FILE]

RUN are folders of finished compilations, scored with the same weight bits. Every preset's plan is
made anew, and run by its runtime on trial seeds, as compiling it would, and on fresh ones, which
are the measurement. Three expectations are held against it: that of a compilation, which has tried
its plan; what the scores add up to, with the model's two gains from its reference plans; and the
same sums without a gain. FILE keeps its rows of other models and bits; in the end the largest
deviations of all rows are told. Exits with 1 where the expectation of a compilation is off by more
than its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.pipeline.planning import planning_records, trial_seeds
from segquant_trt.pipeline.sampling import loop_of
from segquant_trt.pipeline.trials import float_run, run_trials
from segquant_trt.plan import (
    Candidate,
    decisions_sha256,
    latent_gain_db,
    make_plan,
    make_references,
    step_gain_db,
)
from segquant_trt.records import Target
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.options import CompileOptions, Objective, PresetName
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work
from segquant_trt.records.trials import Trial

FIRST_SEED, SEEDS = 1_000_000, 32  # verification's first ones
STEP_BOUND_DB = {8: 2.0, 4: 4.0}
LATENT_BOUND_DB = 3.0
PLANS: tuple[tuple[PresetName, Objective], ...] = (
    ("plain", "balanced"),
    ("seglinear", "balanced"),
    ("segquant", "balanced"),
    ("q-diffusion", "balanced"),
    ("tfmq", "balanced"),
    ("auto", "speed"),
    ("auto", "balanced"),
    ("auto", "quality"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One plan of one model: decibels per step and of the final latent.

    `tried_*`: on trial seeds. `summed_db`: what the scores add up to; `gained_*`: with the gains of
    the model's reference plans, of which this is one if `reference`.
    """

    model: str
    plan: str
    weight_bits: int
    reference: bool
    summed_db: float
    gained_db: float
    tried_db: float
    measured_db: float
    latent_gained_db: float
    latent_tried_db: float
    latent_measured_db: float
    latent_stderr_db: float

    @property
    def within(self) -> bool:
        """Whether what a compilation expects is as close as it is promised to be."""
        return self._within(self.tried_db, self.latent_tried_db)

    @property
    def gained_within(self) -> bool:
        """The same for expectations of plans that were not run."""
        return self._within(self.gained_db, self.latent_gained_db)

    def _within(self, steps_db: float, latent_db: float) -> bool:
        steps = abs(steps_db - self.measured_db) <= STEP_BOUND_DB[self.weight_bits]
        return steps and abs(latent_db - self.latent_measured_db) <= LATENT_BOUND_DB


def examine(run: Path, options: CompileOptions) -> Iterator[Row]:
    """Every preset's plan for the model of a run folder."""
    work = Work(run=RunFolder(run), options=options, progress=Silent())
    facts, scores, table, request, digests = planning_records(work)
    references = make_references(facts, scores, table, request, digests)
    candidates = []
    for preset, objective in PLANS:
        asked = replace(request, preset=preset, objective=objective)
        name = f"{preset} ({objective})" if preset == "auto" else preset
        plan = make_plan(facts, scores, table, asked, digests)
        candidates.append(Candidate(name=name, plan=plan))
    known = {decisions_sha256(c.plan) for c in references}
    trials = _run(work, candidates, trial_seeds(work))
    fresh = _run(work, candidates, range(FIRST_SEED, FIRST_SEED + SEEDS))
    step_gain, latent_gain = step_gain_db(references, trials), latent_gain_db(references, trials)
    for candidate, trial, reached in zip(candidates, trials, fresh, strict=True):
        error = np.std(reached.decibels, ddof=1) / np.sqrt(len(reached.decibels))
        yield Row(
            model=work.spec().source,
            plan=candidate.name,
            weight_bits=options.weight_bits,
            reference=decisions_sha256(candidate.plan) in known,
            summed_db=candidate.expected_db,
            gained_db=round(candidate.expected_db + step_gain, 2),
            tried_db=trial.sqnr_db_mean,
            measured_db=reached.sqnr_db_mean,
            latent_gained_db=round(candidate.expected_db + latent_gain, 2),
            latent_tried_db=_mean_db(trial),
            latent_measured_db=_mean_db(reached),
            latent_stderr_db=round(float(error), 2),
        )


def _run(work: Work, candidates: Sequence[Candidate], seeds: Sequence[int]) -> list[Trial]:
    reference = float_run(work, loop_of(work), seeds)
    return [trial for _, trial in run_trials(work, candidates, reference)]


def _mean_db(trial: Trial) -> float:
    return round(float(np.mean(trial.decibels)), 2)


def told(row: Row) -> str:
    """One line of the table."""
    steps = (row.summed_db, row.gained_db, row.tried_db)
    latents = (row.latent_gained_db, row.latent_tried_db)
    cells = (
        row.model,
        f"W{row.weight_bits} {row.plan}",
        f"{row.measured_db:.1f}",
        *(f"{value - row.measured_db:+.1f}" for value in steps),
        f"{row.latent_measured_db:.1f} \N{PLUS-MINUS SIGN} {row.latent_stderr_db:.1f}",
        *(f"{value - row.latent_measured_db:+.1f}" for value in latents),
        ("" if row.gained_within else "by the gain ") + ("" if row.within else "as tried"),
    )
    return f"| {' | '.join(cells)} |"


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a table: the largest deviations, by bits of the weights."""
    yield (
        "| weights | plans | per step: sum | sum, gain | as tried | final latent: sum, gain | "
        "as tried | out of bounds: sum, gain | as tried |"
    )
    yield f"|{'---|' * 9}"
    for bits in sorted({row.weight_bits for row in rows}, reverse=True):
        own = [row for row in rows if row.weight_bits == bits]
        worst = [
            max(abs(row.summed_db - row.measured_db) for row in own),
            max(abs(row.gained_db - row.measured_db) for row in own),
            max(abs(row.tried_db - row.measured_db) for row in own),
            max(abs(row.latent_gained_db - row.latent_measured_db) for row in own),
            max(abs(row.latent_tried_db - row.latent_measured_db) for row in own),
        ]
        out = sum(not row.gained_within for row in own), sum(not row.within for row in own)
        cells = (f"{bits} bits", len(own), *(f"{value:.1f}" for value in worst), *out)
        yield f"| {' | '.join(map(str, cells))} |"


def kept_rows(path: Path | None, rows: Sequence[Row]) -> list[Row]:
    """`rows`, behind those of other models and bits that the file at `path` has."""
    if path is None or not path.exists():
        return list(rows)
    new = {(row.model, row.weight_bits) for row in rows}
    known = [Row(**row) for row in json.loads(path.read_text())["rows"]]
    return [row for row in known if (row.model, row.weight_bits) not in new] + list(rows)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    target: Target = arguments.target
    print(
        "| model | plan | per step | off: sum | sum, gain | as tried | final latent | off: sum, "
        "gain | as tried | out of bounds |"
    )
    print(f"|{'---|' * 10}")
    rows = []
    for run in arguments.runs:
        options = CompileOptions(
            out=run, target=target, weight_bits=arguments.weight_bits, threads=arguments.threads
        )
        for row in examine(run, options):
            print(told(row), flush=True)
            rows.append(row)
    rows = kept_rows(arguments.json, rows)
    print("\n" + "\n".join(summary(rows)))
    if arguments.json is not None:
        record = {
            "hardware": hardware(),
            "versions": versions(),
            "target": target,
            "rows": [asdict(row) for row in rows],
        }
        atomic_write_json(arguments.json, record)
    return 0 if all(row.within for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
