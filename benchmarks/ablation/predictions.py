"""What plans were expected to reach beside what they reach, on seeds that nothing has seen.

    python -m benchmarks.ablation.predictions RUN... [--weight-bits 4] [--json FILE]

RUN are folders of finished compilations, scored with the same weight bits. Every preset's plan is
made anew, its final latent expected by the gain of RUN/trials.yaml (measured here where it is
missing or of other scores), rewritten, opened by its runtime and run. Exits with 1 where an
expectation is off by more than its bound.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.pipeline import run_stage
from segquant_trt.pipeline.planning import known_trials, planning_records
from segquant_trt.pipeline.sampling import loop_of
from segquant_trt.pipeline.trials import FloatRun, float_run, run_trials
from segquant_trt.plan import Candidate, make_plan
from segquant_trt.records import Target
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.options import CompileOptions, Objective, PresetName
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work

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
    """One plan of one model: decibels per step and of the final latent."""

    model: str
    plan: str
    weight_bits: int
    expected_db: float
    measured_db: float
    latent_expected_db: float
    latent_measured_db: float
    latent_stderr_db: float

    @property
    def off_db(self) -> float:
        """Expected less measured, per step."""
        return self.expected_db - self.measured_db

    @property
    def latent_off_db(self) -> float:
        """Expected less measured, at the final latent."""
        return self.latent_expected_db - self.latent_measured_db

    @property
    def within(self) -> bool:
        """Whether both are as close as they are promised to be."""
        steps = abs(self.off_db) <= STEP_BOUND_DB[self.weight_bits]
        return steps and abs(self.latent_off_db) <= LATENT_BOUND_DB


def examine(run: Path, options: CompileOptions) -> Iterator[Row]:
    """Every preset's plan for the model of a run folder."""
    work = Work(run=RunFolder(run), options=options, progress=Silent())
    facts, scores, table, request, digests = planning_records(work)
    known = known_trials(work, digests.scores)
    if known is None or known.latent_gain_db is None:
        run_stage("trial", replace(options, preset="plain"))
        known = known_trials(work, digests.scores)
    assert known is not None
    assert known.latent_gain_db is not None
    candidates = []
    for preset, objective in PLANS:
        asked = replace(request, preset=preset, objective=objective)
        name = f"{preset} ({objective})" if preset == "auto" else preset
        plan = make_plan(facts, scores, table, asked, digests)
        candidates.append(Candidate(name=name, plan=plan))
    reference = float_run(work, loop_of(work), range(FIRST_SEED, FIRST_SEED + SEEDS))
    yield from _rows(work, candidates, reference, known.latent_gain_db)


def _rows(
    work: Work, candidates: Sequence[Candidate], reference: FloatRun, gain_db: float
) -> Iterator[Row]:
    for candidate, trial in run_trials(work, candidates, reference, in_steps=True):
        assert trial.sqnr_db_mean is not None
        yield Row(
            model=work.spec().source,
            plan=candidate.name,
            weight_bits=work.options.weight_bits,
            expected_db=candidate.expected_db,
            measured_db=trial.sqnr_db_mean,
            latent_expected_db=round(candidate.expected_db + gain_db, 2),
            latent_measured_db=round(float(np.mean(trial.decibels)), 2),
            latent_stderr_db=round(
                float(np.std(trial.decibels, ddof=1) / np.sqrt(len(trial.decibels))), 2
            ),
        )


def told(row: Row) -> str:
    """One line of the table."""
    return (
        f"| {row.model} | W{row.weight_bits} {row.plan} | {row.expected_db:.1f} | "
        f"{row.measured_db:.1f} | {row.off_db:+.1f} | {row.latent_expected_db:.1f} | "
        f"{row.latent_measured_db:.1f} \N{PLUS-MINUS SIGN} {row.latent_stderr_db:.1f} | "
        f"{row.latent_off_db:+.1f} |{'' if row.within else ' off'}"
    )


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
        "| model | plan | per step, expected | measured | off | latent, expected | measured | off |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for run in arguments.runs:
        options = CompileOptions(
            out=run, target=target, weight_bits=arguments.weight_bits, threads=arguments.threads
        )
        for row in examine(run, options):
            print(told(row), flush=True)
            rows.append(row)
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
