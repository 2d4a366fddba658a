"""The linter says of a graph what TensorRT-RTX then does with it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from segquant_trt.backends.tensorrt.lint import LintReport, lint
from tests.backends.tensorrt.lint.bases import BASES
from tests.backends.tensorrt.lint.editor import Editor, NotApplicable
from tests.backends.tensorrt.lint.judge import Judge, Judgement
from tests.backends.tensorrt.lint.mutations import MUTATIONS
from tests.backends.tensorrt.lint.sketch import products
from tests.backends.tensorrt.lint.test_rules import CASES, Case

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is the judge")

GPUS = ("sm_89", "sm_120", "sm_80", "sm_75")
QUICK = (
    ("int8 per token", "as it was"),
    ("int8 per token", "scale dynamic"),
    ("int8 chain", "weight scales of inputs"),
    ("int8 chain", "int32 bias"),
    ("int8 chain", "joined with two scales"),
    ("int8 chain in bf16", "Mul of two types"),
    ("fp8 chain", "codes swapped"),
    ("fp8 per token", "as it was"),
    ("segments", "zero point 3"),
    ("segments", "scale per channel"),
    ("dual", "as it was"),
    ("dual", "Relu after DQ"),
    ("int8 convolution", "as it was"),
    ("int8 convolution", "weight scales of inputs"),
    ("gemm", "weight not coded"),
    ("fp8 attention", "as it was"),
    ("fp8 attention", "softmax not coded"),
    ("fp16 attention", "Attention in fp32"),
    ("block", "as it was"),
    ("block", "unknown operator"),
)


@dataclass(frozen=True)
class Mutant:
    """A valid graph, what was done to it, and the GPU that it is for."""

    name: str
    gpu: str
    model: onnx.ModelProto


def mutant(base: str, change: str, *, gpu: str | None = None) -> Mutant | None:
    """None where the graph has no place for the change."""
    seed = zlib.crc32(f"{base}/{change}".encode())
    editor = Editor(BASES[base](seed % 97), seed)
    try:
        MUTATIONS[change](editor)
    except NotApplicable:
        return None
    # Ada and Blackwell more often: they have both FP8 and INT8.
    chosen = gpu or (*GPUS, *GPUS[:2])[seed // 97 % 6]
    return Mutant(f"{base} / {change} / {chosen}", chosen, editor.model)


def pairs(count: int) -> Iterator[Mutant]:
    """Two changes to one graph."""
    changes, bases = list(MUTATIONS), list(BASES)
    for number in range(count):
        seed = zlib.crc32(f"pair {number}".encode())
        base = bases[seed % len(bases)]
        two = (changes[seed // 31 % len(changes)], changes[seed // 4013 % len(changes)])
        editor = Editor(BASES[base](seed % 89), seed)
        try:
            for change in two:
                MUTATIONS[change](editor)
        except (NotApplicable, IndexError, KeyError, StopIteration, TypeError, ValueError):
            continue  # the first change took away what the second needs
        gpu = GPUS[seed // 97 % 2]
        yield Mutant(f"{base} / {' + '.join(two)} / {gpu}", gpu, editor.model)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as one:
        yield one


def linted(mutant: Mutant, folder: Path) -> LintReport:
    path = folder / "model.onnx"
    path.write_bytes(mutant.model.SerializeToString())
    return lint(path, target="tensorrt-rtx", capability=mutant.gpu)


def difference(mutant: Mutant, report: LintReport, truth: Judgement) -> str:
    """What the linter did not foresee; empty where it is right."""
    failed = report.outcome if report.outcome in ("parse-error", "build-error") else "built"
    # A builder that dies has built nothing.
    ending = "build-error" if truth.ending == "crash" else truth.ending
    if failed != ending:
        rules = [finding.rule for finding in report.errors]
        return f"{mutant.name}: {truth.ending} ({truth.message[:200]}); linter: {failed} {rules}"
    if ending != "built":
        return ""
    foreseen = {site.site for site in report.sites if site.eight_bit}
    wrong = (foreseen ^ truth.eight_bit) & set(products(mutant.model))
    reasons = {site.site: site.reasons for site in report.sites}
    return f"{mutant.name}: wrong about {sorted(wrong)}; {reasons}" if wrong else ""


def verdict(report: LintReport, truth: Judgement) -> str:
    """Of the four: parse error, build error, a site not of 8 bits, fine."""
    if truth.ending != "built":
        return "build-error" if truth.ending == "crash" else truth.ending
    silent = {site.site for site in report.sites} - truth.eight_bit
    return "not-8-bit" if silent else "fine"


def disagreements(mutants: Iterator[Mutant], judge: Judge, folder: Path) -> tuple[list[str], str]:
    wrong, counts = [], Counter[str]()
    for one in mutants:
        report, truth = linted(one, folder), judge.build(one.model, one.gpu)
        counts[verdict(report, truth)] += 1
        found = difference(one, report, truth)
        wrong += [found] if found else []
    return wrong, f"{sum(counts.values())} graphs: {dict(sorted(counts.items()))}"


@pytest.mark.parametrize(("base", "change"), QUICK, ids=[" / ".join(pair) for pair in QUICK])
def test_the_linter_foresees_what_the_builder_does(
    base: str, change: str, judge: Judge, tmp_path: Path
) -> None:
    one = mutant(base, change, gpu="sm_89")
    assert one is not None
    assert difference(one, linted(one, tmp_path), judge.build(one.model, one.gpu)) == ""


@pytest.mark.full
@pytest.mark.parametrize("base", BASES)
def test_every_change_to_every_graph(base: str, judge: Judge, tmp_path: Path) -> None:
    mutants = (one for change in MUTATIONS if (one := mutant(base, change)) is not None)
    wrong, counts = disagreements(mutants, judge, tmp_path)
    print(counts)
    assert wrong == []


@pytest.mark.full
def test_two_changes_at_once(judge: Judge, tmp_path: Path) -> None:
    wrong, counts = disagreements(pairs(400), judge, tmp_path)
    print(counts)
    assert wrong == []


RTX_CASES = [case for case in CASES if case.target == "tensorrt-rtx" and case.plugins == ()]


@pytest.mark.full
@pytest.mark.parametrize("case", RTX_CASES, ids=lambda case: case.rule)
def test_the_minimal_graphs_of_the_rules(case: Case, judge: Judge, tmp_path: Path) -> None:
    for make, gpu in ((case.broken, case.gpu), (case.fixed, case.fixed_gpu or case.gpu)):
        one = Mutant(case.rule, gpu, make())
        assert difference(one, linted(one, tmp_path), judge.build(one.model, gpu)) == ""
