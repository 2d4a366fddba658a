"""Plans are tried, then one is chosen; later its expectations are held against figures.

`trial` runs what competes and writes down how it did; `plan` decides from records alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.models import identity
from segquant_trt.pipeline.asking import plan_request_of
from segquant_trt.pipeline.sampling import STEPS, is_zoo, loop_of, sample_count
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.files import sha256_file
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.stage import Work
from segquant_trt.records.trials import Trial, Trials

if TYPE_CHECKING:
    from segquant_trt.plan import Candidate, Digests, PlanRequest
    from segquant_trt.records import Contender, GraphFacts, Quality, QuantPlan
    from segquant_trt.records.costs import CostTable
    from segquant_trt.records.scores import Scores

_SEEDS, _ZOO_SEEDS = 4, 24
_FRESH = 665_280  # a multiple of usual numbers of prompts: those of calibration, with other noise
_TRIED_BYTES = 1 << 31  # larger checkpoints take minutes to hours on a CPU, for every plan
_LIMITS = {"objective": "balanced", "max_latency": None, "target_sqnr": None}


def of_trials(work: Work) -> Any:
    """What trials depend on beside records: rules, prices, inputs, prompts and the runtimes."""
    return [
        identity.of_planning(work),
        identity.of_calibration(work),
        identity.runtime_versions(),
    ]


def of_plan(work: Work) -> Any:
    """What a plan depends on beside its records; trials, if there are any."""
    return [identity.of_planning(work), work.run.digests(("trials.yaml",))]


def trial_stage(work: Work) -> None:
    """Write `trials.yaml`."""
    write_record(work.run / "trials.yaml", _tried(work))


def _tried(work: Work) -> Trials:
    from segquant_trt.pipeline.trials import float_run, run_trials
    from segquant_trt.plan import (
        decisions_sha256,
        latent_gain_db,
        make_candidates,
        make_references,
        step_gain_db,
    )

    wanted = _wanted(work)
    loop = loop_of(work) if wanted else None
    running: list[Candidate] = []
    references: tuple[Candidate, ...] = ()
    if wanted:
        records = planning_records(work)
        running = [candidate for candidate in make_candidates(*records) if candidate.competes]
        references = make_references(*records)
    plans = {decisions_sha256(c.plan): c for c in (*references, *running)}
    found: tuple[Trial, ...] = ()
    seeds = () if loop is None else trial_seeds(work)
    if plans:
        reference = float_run(work, loop, seeds)
        found = tuple(trial for _, trial in run_trials(work, list(plans.values()), reference))
    return Trials(
        onnx_sha256=work.spec().onnx_sha256,
        scores_sha256=sha256_file(work.run / "scores.safetensors"),
        compared="recorded samples" if loop is None else "final latents",
        seeds=seeds,
        scheduler_steps=None if loop is None else work.options.steps or STEPS,
        step_gain_db=step_gain_db(references, found) if wanted else None,
        latent_gain_db=None if loop is None else latent_gain_db(references, found),
        trials=found,
    )


def trial_seeds(work: Work) -> tuple[int, ...]:
    """Of the trajectories that plans are tried on: calibration's prompts, with other noise."""
    count = min(sample_count(work), _ZOO_SEEDS if is_zoo(work) else _SEEDS)
    return tuple(work.options.seed + _FRESH + i for i in range(count))


def _wanted(work: Work) -> bool:
    if work.options.trials is None and work.spec().size_bytes_float > _TRIED_BYTES:
        work.progress.note(
            "the model is too large to try plans on it unasked: the plan is chosen by what is "
            "expected of it (--trials runs them)"
        )
        return False
    return work.options.trials is not False


def plan_stage(work: Work) -> None:
    """Write `plan.yaml`."""
    from segquant_trt.plan import choose, make_candidates
    from segquant_trt.records.costs import table_advice

    advice = table_advice(work.options.target) if work.options.costs is None else None
    if advice is not None:
        work.progress.note(advice)
    records = planning_records(work)
    *_, request, digests = records
    trials = known_trials(work, digests.scores)
    candidates = make_candidates(*records)
    plan = choose(candidates, trials, request)
    write_record(work.run / "plan.yaml", plan)
    rivals = sum(candidate.competes for candidate in candidates) > 1
    untried = trials is None or (trials.trials and not plan.chosen_from)
    if rivals and untried and work.options.trials is not False:
        work.progress.note(
            "chosen by what is expected of it: 'segquant-trt trial', and 'plan' after it, compare "
            "it with the presets' plans by running them"
        )
    for line in _told(plan):
        work.progress.note(line)


def planning_records(
    work: Work,
) -> tuple[GraphFacts, Scores, CostTable, PlanRequest, Digests]:
    """What plans are made from.

    Raises:
        SegQuantError: a record is missing or damaged.
    """
    from segquant_trt.plan import Digests
    from segquant_trt.records.costs import cost_table
    from segquant_trt.records.scores import read_scores

    options, facts = work.options, work.facts()
    scores = read_scores(work.run / "scores.safetensors")
    return (
        facts,
        scores,
        cost_table(options.target, options.costs),
        plan_request_of(work, facts, options),
        Digests(
            facts=sha256_file(work.run / "facts.yaml"),
            calibration=scores.calibration_sha256,
            scores=sha256_file(work.run / "scores.safetensors"),
        ),
    )


def _told(plan: QuantPlan) -> Iterator[str]:
    """What was compared, and what is expected of the plan."""
    run = [contender for contender in plan.chosen_from if contender.ran]
    left = [contender for contender in plan.chosen_from if not contender.ran]
    if run:
        yield "tried before choosing: " + "; ".join(_result(contender) for contender in run)
    if left:
        yield "; ".join(f"{contender.name} {contender.verdict}" for contender in left)
    expected = plan.prediction
    if expected is not None and expected.sqnr_db_mean is not None:
        latent = (
            ""
            if expected.latent_sqnr_db is None
            else f", {expected.latent_sqnr_db:.1f} dB at the final latent"
        )
        yield (
            f"expected: {expected.sqnr_db_mean:.1f} dB per step{latent}, sites "
            f"{expected.latency_ms} ms ({expected.latency_ms_plain} ms if plain)"
        )


def _result(contender: Contender) -> str:
    reached = contender.measured_db if contender.latent_db is None else contender.latent_db
    if contender.chosen:
        return f"{contender.name} {reached:.2f} dB, chosen: {contender.verdict}"
    error = contender.margin_stderr_db
    spread = "" if error is None else f" \N{PLUS-MINUS SIGN} {error:.2f}"
    return f"{contender.name} {reached:.2f} dB ({contender.margin_db:+.2f}{spread})"


def note_expectations(work: Work, quality: Quality) -> None:
    """Tell what the plan was expected to reach beside what its bundle was measured at."""
    expected = work.plan().prediction
    if expected is None or expected.sqnr_db_mean is None:
        return
    text = f"per step {quality.sqnr_db_mean:.1f} dB, expected {expected.sqnr_db_mean:.1f}"
    if quality.latent_sqnr_db is not None:
        error = quality.latent_sqnr_db_stderr
        text += f"; final latent {quality.latent_sqnr_db:.1f}"
        text += "" if error is None else f" \N{PLUS-MINUS SIGN} {error:.1f}"
        text += " dB"
        if expected.latent_sqnr_db is not None:
            text += f", expected {expected.latent_sqnr_db:.1f}"
    work.progress.note(text)


def refuse_idle_limits(options: CompileOptions, given: Collection[str] | None = None) -> None:
    """Refuse limits that the preset would not keep to: only `auto` plans for them.

    Args:
        options: what was asked.
        given: the options that were asked for now, not recalled; None for all.

    Raises:
        SegQuantError: a limit is among them, and the preset is not `auto`.
    """
    if options.preset == "auto":
        return
    idle = [
        name
        for name, default in _LIMITS.items()
        if getattr(options, name) != default and (given is None or name in given)
    ]
    if idle:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise SegQuantError(
            f"the preset {options.preset} has one plan, which takes no account of {flags}",
            hint=f"use --preset auto with {flags}, or leave {flags} out",
        )


def known_trials(work: Work, scores_sha256: str) -> Trials | None:
    """The trials of these scores, if there are any."""
    path = work.run / "trials.yaml"
    if not path.exists():
        return None
    trials = read_record(path, Trials)
    return trials if trials.scores_sha256 == scores_sha256 else None
