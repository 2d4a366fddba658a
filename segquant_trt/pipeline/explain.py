"""Explain one site of the plan that a run folder holds, without planning anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from segquant_trt.pipeline.run import run_stage
from segquant_trt.pipeline.stages import PRODUCERS, STAGES
from segquant_trt.records.options import PRESETS, CompileOptions, PresetName
from segquant_trt.records.progress import Progress, Silent
from segquant_trt.records.remembered import recall
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work

if TYPE_CHECKING:
    from segquant_trt.report.description import Description

_NEEDED = ("facts.yaml", "scores.safetensors")
_OF_EXPLAINING = frozenset(("out", "costs", "rules", "force"))


def explain_site(
    options: CompileOptions,
    name: str,
    *,
    given: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Description:
    """What the plan does to the site `name` and why, beside everything else that was scored.

    A folder without a plan is planned first.

    Args:
        options: `out`, and where prices and rules are read from.
        name: of a node or module, or a pattern that matches one site.
        given: options that are not to be recalled from the folder; None for all.
        progress: told what was recalled.

    Raises:
        SegQuantError: a record is missing or damaged, or no single site has that name.
    """
    from segquant_trt.pipeline.asking import plan_request_of
    from segquant_trt.plan import weigh
    from segquant_trt.records.costs import cost_table
    from segquant_trt.records.scores import read_scores
    from segquant_trt.report.explain import explain, find_site

    run = RunFolder(options.out)
    run.require(_NEEDED, stage="plan --explain", producers=PRODUCERS)
    work = Work(run=run, options=options, progress=progress or Silent())
    facts = work.facts()
    site = find_site(facts, name)
    if (run / "plan.yaml").exists():
        _note_unused(given or (), work.progress)
        (row,) = (row for row in STAGES if row.name == "plan")
        if given is not None:
            options = recall(options, row.reads, given=given, progress=work.progress)
    else:
        run_stage("plan", options, progress=progress, given=given)
    plan, scores = work.plan(), read_scores(run / "scores.safetensors")
    plan.check_sites(site.name for site in facts.sites)
    scores.check_graph(facts.onnx_sha256)
    preset: PresetName = next((known for known in PRESETS if known == plan.planner), PRESETS[0])
    request = plan_request_of(work, facts, replace(options, target=plan.target))
    request = replace(request, preset=preset)
    table = cost_table(plan.target, options.costs)
    current = run.digests(_NEEDED)["scores.safetensors"] == plan.scores_sha256
    return explain(
        site,
        facts,
        next(score for score in scores.sites if score.site == site.name),
        next(entry for entry in plan.sites if entry.site == site.name),
        weigh(facts, scores, table, request, plan, site.name),
        notes=() if current else ("the plan was made from other scores than these: plan again",),
    )


def _note_unused(given: Collection[str], progress: Progress) -> None:
    unused = sorted(set(given) - _OF_EXPLAINING)
    if unused:
        flags = " ".join(f"--{name.replace('_', '-')}" for name in unused)
        progress.note(f"plan.yaml is explained as it is; {flags} would need a new plan")
