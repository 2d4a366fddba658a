"""Plans are tried on calibration seeds, then one is chosen; later its figures are held against it.

`trial` runs what competes and writes down how it did; `plan` decides from records alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.models import identity
from segquant_trt.pipeline.sampling import is_zoo, sample_count
from segquant_trt.records.codec import read_record, write_record
from segquant_trt.records.files import sha256_file
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.stage import Work
from segquant_trt.records.trials import Trials

if TYPE_CHECKING:
    from segquant_trt.plan import Candidate
    from segquant_trt.records import Contender, Quality, QuantPlan

_SEEDS, _ZOO_SEEDS = 4, 24  # the first ones of calibration
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
    from segquant_trt.plan import REFERENCE, latent_gain_db

    scores_sha256 = sha256_file(work.run / "scores.safetensors")
    nothing = Trials(
        onnx_sha256=work.spec().onnx_sha256,
        scores_sha256=scores_sha256,
        compared="recorded samples",
        seeds=(),
        scheduler_steps=None,
        latent_gain_db=None,
        trials=(),
    )
    if not _wanted(work):
        return nothing
    count = min(sample_count(work), _ZOO_SEEDS if is_zoo(work) else _SEEDS)
    running = _running(work)
    reference = float_run(work, [work.options.seed + i for i in range(count)])
    if reference.loop is None and len(running) == 1:  # nothing to compare, no latents to gain
        return nothing
    in_steps = work.options.target_sqnr is not None
    found = list(run_trials(work, running, reference, in_steps=in_steps))
    gains = [latent_gain_db(c, trial) for c, trial in found if c.name == REFERENCE]
    looped = reference.loop is not None
    return Trials(
        onnx_sha256=nothing.onnx_sha256,
        scores_sha256=scores_sha256,
        compared="final latents" if looped else "recorded samples",
        seeds=reference.seeds,
        scheduler_steps=reference.sampling.steps if looped else None,
        latent_gain_db=gains[0] if looped else None,
        trials=tuple(trial for _, trial in found),
    )


def _wanted(work: Work) -> bool:
    if work.options.trials is None and work.spec().size_bytes_float > _TRIED_BYTES:
        work.progress.note(
            "the model is too large to try plans on it unasked: the plan is chosen by what is "
            "expected of it (--trials runs them)"
        )
        return False
    return work.options.trials is not False


def _running(work: Work) -> list[Candidate]:
    """What competes for `auto`, and the plan that the gain of latents is measured on."""
    from segquant_trt.plan import REFERENCE, make_reference

    candidates, arguments = _candidates(work)
    running = [candidate for candidate in candidates if candidate.competes]
    if len(candidates) == 1:  # nothing to choose
        running = []
    if not any(candidate.name == REFERENCE for candidate in running):
        running.append(make_reference(*arguments))
    return running


def plan_stage(work: Work) -> None:
    """Write `plan.yaml`."""
    from segquant_trt.plan import choose

    candidates, (*_, request, digests) = _candidates(work)
    trials = _known(work, digests.scores)
    plan = choose(candidates, trials, request)
    write_record(work.run / "plan.yaml", plan)
    if request.preset == "auto" and trials is None and work.options.trials is not False:
        work.progress.note(
            "chosen by what is expected of it: 'segquant-trt trial', and 'plan' after it, compare "
            "it with the presets' plans by running them"
        )
    for line in _told(plan):
        work.progress.note(line)


def _candidates(work: Work) -> tuple[tuple[Candidate, ...], tuple[Any, ...]]:
    """Candidates, and the records and the request that they were made from."""
    from segquant_trt.plan import Digests, make_candidates, plan_request
    from segquant_trt.records.costs import cost_table
    from segquant_trt.records.scores import read_scores

    options = work.options
    scores = read_scores(work.run / "scores.safetensors")
    arguments = (
        work.facts(),
        scores,
        cost_table(options.target, options.costs),
        plan_request(options),
        Digests(
            facts=sha256_file(work.run / "facts.yaml"),
            calibration=scores.calibration_sha256,
            scores=sha256_file(work.run / "scores.safetensors"),
        ),
    )
    return make_candidates(*arguments), arguments


def _told(plan: QuantPlan) -> Iterator[str]:
    """What was compared, and what is expected of the plan."""
    run = [contender for contender in plan.chosen_from if contender.ran]
    left = [contender for contender in plan.chosen_from if not contender.ran]
    if run:
        yield "tried on calibration seeds: " + "; ".join(_result(contender) for contender in run)
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


def _known(work: Work, scores_sha256: str) -> Trials | None:
    """The trials of these scores, if there are any."""
    path = work.run / "trials.yaml"
    if not path.exists():
        return None
    trials = read_record(path, Trials)
    return trials if trials.scores_sha256 == scores_sha256 else None
