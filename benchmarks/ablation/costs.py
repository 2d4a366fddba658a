"""What treatments cost: one site at a time, in every backend, in interleaved runs.

    python -m benchmarks.ablation.costs --work DIR [--tables DIR]

measures every variant on every shape and writes benchmarks/results/costs.json. A measured shape is
a file under DIR and is not measured again. `--tables` writes the cost table of every target, as
`segquant-trt costs` does. Ratios are medians of paired runs; the fit takes the least disturbed
tenth of the runs, and wants a quiet machine all the same.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segquant_trt.bench.costs.fit import Case
from segquant_trt.bench.costs.shapes import SHAPES
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.cli.progress import StderrProgress
from segquant_trt.pipeline.costs import measure
from segquant_trt.records import CPU_TARGETS
from segquant_trt.records.codec import write_record
from segquant_trt.records.files import atomic_write_json

RESULTS = Path(__file__).parents[1] / "results" / "costs.json"


def _brief(case: Case) -> dict[str, Any]:
    """The case without what its label says; ratios as [median, low, high]."""
    kept = ("target", "variant", "label", "kernel", "runs", "median_ms", "quiet_ms")
    ratios = {
        name: list(asdict(getattr(case, name)).values())
        for name in ("over_float", "over_symmetric")
    }
    return {"shape": case.shape.label, **{name: getattr(case, name) for name in kept}, **ratios}


def main() -> None:
    """Measure, fit, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of measured shapes")
    parser.add_argument("--targets", nargs="+", choices=CPU_TARGETS, default=CPU_TARGETS)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds per shape and target")
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument("--tables", type=Path, help="folder for a cost table per target")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    empty_ms: dict[str, float] = {}
    with StderrProgress() as progress:
        for target in arguments.targets:
            cases, empty, table = measure(
                arguments.work,
                target,
                budget_s=arguments.budget * len(SHAPES),
                threads=arguments.threads,
                progress=progress,
            )
            rows += map(_brief, cases)
            empty_ms[target] = empty.among(cases)
            print(f"{target}: median error {table.median_error:.0%}")
            if arguments.tables:
                write_record(arguments.tables / f"{target}.yaml", table)
    of = {"hardware": hardware(), "versions": versions()}
    atomic_write_json(RESULTS, {**of, "empty_call_ms": empty_ms, "rows": rows})


if __name__ == "__main__":
    main()
