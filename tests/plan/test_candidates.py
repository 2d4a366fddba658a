"""Which plans compete for being chosen, and which of them cannot win."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.plan import (
    Candidate,
    PlanRequest,
    decisions_sha256,
    make_candidates,
    make_references,
)
from segquant_trt.plan.candidates import _pruned
from segquant_trt.records import Smoothing, Treatment
from segquant_trt.records.scores import Scores
from tests.plan.made_up import (
    DIGESTS,
    NEAREST,
    OPTIMISED,
    PRICES,
    facts_of,
    label_of,
    of_bits,
    option,
    score,
    scores_of,
    site,
    table,
    treatment,
)

SITES = [site("a"), site("b")]
FACTS = facts_of(*SITES)
PLAIN = treatment("symmetric")
SHIFTED = treatment("shifted")
ROWS = treatment("shifted", factor="per_token")
SMOOTH = treatment("symmetric", smooth=True)
STEPS = treatment("symmetric", factor="per_step")
FITTED = treatment("shifted", weight=OPTIMISED)


def scored(*noises: tuple[Treatment, float]) -> Scores:
    return scores_of(
        *(score(s, *(option(treated, noise) for treated, noise in noises)) for s in SITES)
    )


def found(scores: Scores, **asked) -> dict[str, Candidate]:
    request = PlanRequest(**({"target": "onnxruntime", "float_share": 0.0} | asked))
    made = make_candidates(FACTS, scores, table(**PRICES), request, DIGESTS)
    return {candidate.name: candidate for candidate in made}


def kinds(candidate: Candidate) -> set[str]:
    return {label_of(planned) for planned in candidate.plan.sites}


ALL = scored((PLAIN, 4e-4), (SHIFTED, 3e-4), (SMOOTH, 1e-4), (STEPS, 2e-4), (ROWS, 1e-6))


def test_a_preset_has_no_rivals() -> None:
    assert list(found(ALL, preset="segquant")) == ["segquant"]


def test_auto_comes_first_and_every_preset_competes() -> None:
    names = list(found(ALL, max_latency_ratio=9.0))
    assert names[0] == "auto"
    assert {"plain", "seglinear", "segquant", "q-diffusion", "tfmq"} < set(names)


def test_presets_over_the_limit_may_not_be_chosen() -> None:
    tight = found(ALL, max_latency_ratio=1.0)
    assert tight["plain"].refused is None
    assert "at most" in (tight["segquant"].refused or "")
    assert tight["segquant"].cost_ms > tight["plain"].cost_ms
    assert not tight["segquant"].competes
    loose = found(ALL, max_latency_ratio=9.0)
    assert all(candidate.refused is None for candidate in loose.values())


def test_the_best_preset_always_runs_and_hopeless_ones_do_not() -> None:
    loose = found(ALL, max_latency_ratio=9.0)  # rows are 20 dB better than any preset's choice
    running = {name for name, candidate in loose.items() if candidate.competes}
    assert running == {"auto", "segquant"}
    assert "4 dB worse" in (loose["plain"].pruned or "")


@pytest.mark.parametrize(("bits", "runs"), [(8, False), (4, True)])
def test_what_is_hopeless_depends_on_how_good_expectations_are(bits: int, runs: bool) -> None:
    close = scored(
        (of_bits(PLAIN, bits), 4.2e-4), (of_bits(SMOOTH, bits), 1e-4), (of_bits(ROWS, bits), 9e-5)
    )
    plain = found(close, max_latency_ratio=9.0, weight_bits=bits)["plain"]  # 6.7 dB behind
    assert plain.competes == runs


@pytest.mark.parametrize("bits", [8, 4])
def test_gains_are_measured_on_plans_that_no_limit_changes(bits: int) -> None:
    options = ((PLAIN, 4e-4), (SMOOTH, 1e-4), (ROWS, 1e-6))
    scores = scored(*((of_bits(treated, bits), noise) for treated, noise in options))
    free = PlanRequest(target="onnxruntime", float_share=0.0, weight_bits=bits)
    limited = replace(free, max_latency_ratio=1.0, objective="quality", target_sqnr_db=200.0)
    made = [
        make_references(FACTS, scores, table(**PRICES), request, DIGESTS)
        for request in (free, limited)
    ]
    assert [candidate.name for candidate in made[0]] == ["plain", "segquant", "auto"]
    assert made[0] == made[1]


def test_plans_that_do_the_same_compete_once() -> None:
    only = scored((PLAIN, 1e-4))
    made = found(only, max_latency_ratio=9.0)
    assert [name for name, candidate in made.items() if candidate.competes] == ["auto"]
    assert made["tfmq"].pruned == "the same as auto"


def test_rules_hold_for_presets_too() -> None:
    made = found(ALL, max_latency_ratio=9.0, keep_float=("a",))
    for candidate in made.values():
        assert candidate.plan.sites[0].treatment.is_float
        assert not candidate.plan.sites[1].treatment.is_float


def test_auto_without_optimised_weights_is_a_variant() -> None:
    fitted = scored((PLAIN, 4e-4), (SHIFTED, 3e-4), (FITTED, 1e-4))
    made = found(fitted)
    weights = {
        name: {planned.treatment.weight for planned in made[name].plan.sites}
        for name in ("auto", "auto without GPTQ")
    }
    assert weights == {"auto": {OPTIMISED}, "auto without GPTQ": {NEAREST}}
    assert "auto without GPTQ" not in found(scored((FITTED, 1e-4)))


def test_a_dear_plan_competes_with_one_of_the_usual_budget() -> None:
    close = scored((PLAIN, 4e-4), (FITTED, 2e-4), (ROWS, 1e-4))
    dear = found(close, max_latency_ratio=9.0)
    spared, own = dear["auto in less time"], dear["auto"]
    assert kinds(own) == {"shifted/per_token"}
    assert kinds(spared) == {label_of(one) for one in found(close)["auto"].plan.sites}
    same = [c for c in dear.values() if decisions_sha256(c.plan) == decisions_sha256(spared.plan)]
    assert any(c.competes for c in same)
    hopeless = found(ALL, max_latency_ratio=9.0)  # rows are 20 dB better
    assert hopeless["auto in less time"].pruned == "the same as plain"
    assert "4 dB worse" in (hopeless["plain"].pruned or "")
    assert spared.plan.prediction is not None
    assert spared.cost_ms <= 1.05 * (spared.plan.prediction.latency_ms_plain or 0.0)
    assert "auto in less time" not in found(close)
    assert "auto in less time" not in found(close, max_latency_ratio=9.0, target_sqnr_db=20.0)


def test_a_plan_of_the_usual_budget_that_cannot_win_is_not_run() -> None:
    """Also where no preset does the same: the one it is like here is taken away."""
    request = PlanRequest(target="onnxruntime", float_share=0.0, max_latency_ratio=9.0)
    hopeless = found(ALL, max_latency_ratio=9.0)
    sparing = replace(hopeless["auto in less time"], pruned=None)
    kept = [hopeless["auto"], hopeless["segquant"], sparing]
    *_, judged = _pruned(kept, request)
    assert "4 dB worse" in (judged.pruned or "")


def test_presets_short_of_a_target_may_not_be_chosen() -> None:
    made = found(ALL, target_sqnr_db=36.0)  # two sites of 1e-4 are 37 dB
    assert made["segquant"].refused is None
    assert "36 asked for" in (made["plain"].refused or "")
    assert made["auto"].expected_db >= 36.0
    assert {"auto +1 dB", "auto +2 dB"} < set(made)
    assert made["auto +2 dB"].expected_db >= 38.0


def test_a_target_and_a_latency_hold_together() -> None:
    asked = {"target_sqnr_db": 36.0, "max_latency_ratio": 9.0}
    loose = found(ALL, **asked)
    assert loose["auto"].cost_ms == found(ALL, target_sqnr_db=36.0)["auto"].cost_ms
    tight = loose["auto"].cost_ms / found(ALL, preset="plain")["plain"].cost_ms + 0.01
    bounded = found(ALL, **(asked | {"max_latency_ratio": tight}))
    assert all(c.cost_ms <= loose["auto"].cost_ms * 1.02 for c in bounded.values() if c.competes)
    with pytest.raises(SegQuantError, match=r"at most .* are allowed"):
        found(ALL, **(asked | {"max_latency_ratio": 1.0}))


def test_a_target_out_of_reach_has_no_higher_variants() -> None:
    best = found(ALL, max_latency_ratio=99.0)["auto"].expected_db
    made = found(ALL, target_sqnr_db=best - 1.5)
    assert "auto +1 dB" in made
    assert "auto +2 dB" not in made


def test_a_plan_is_known_by_what_it_does() -> None:
    plan = found(ALL, preset="plain")["plain"].plan
    reworded = replace(
        plan, preset="auto", sites=tuple(replace(s, why="so", considered=()) for s in plan.sites)
    )
    assert decisions_sha256(reworded) == decisions_sha256(plan)
    first = plan.sites[0]
    smooth = replace(
        first.treatment, smoothing=Smoothing(divisor="d-2", alpha=0.5, segment_exponent=None)
    )
    for other in (
        replace(plan, target="openvino"),
        replace(plan, sites=(replace(first, treatment=smooth), *plan.sites[1:])),
        replace(plan, sites=(replace(first, output_range=(-1.0, 1.0)), *plan.sites[1:])),
        replace(plan, sites=(replace(first, output_channels="o-9"), *plan.sites[1:])),
    ):
        assert decisions_sha256(other) != decisions_sha256(plan)
