"""What treatments cost: one site at a time, in every backend, in interleaved runs.

    python -m benchmarks.ablation.costs --work DIR [--tables DIR]

measures every variant on every shape and writes benchmarks/results/costs.json. A measured shape is
a file under DIR and is not measured again. `--tables` fits a cost
table of the planner's form for every target. Ratios are medians of paired runs; the fit takes the
least disturbed tenth of the runs, and wants a quiet machine all the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from scipy.optimize import nnls

from benchmarks.ablation.cells import cell
from benchmarks.ablation.interleaved import Call, interleaved, speedup
from benchmarks.ablation.one_site import Shape, Variant, one_site
from segquant_trt.backends import backend_for
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.plan.costs import CostModel
from segquant_trt.plan.costs import Shape as PlannedShape
from segquant_trt.records import TARGETS, Target, Treatment, WeightPlan
from segquant_trt.records.codec import from_plain, to_plain, write_record
from segquant_trt.records.costs import CostLine, CostTable, CostTerm
from segquant_trt.records.files import atomic_write_json

_QUIET = 10  # percentile of the runs that others on the machine disturbed least
RESULTS = Path(__file__).parents[1] / "results" / "costs.json"
BATCH = 2

SHAPES: tuple[Shape, ...] = (
    *(
        Shape(op="linear", rows=rows, parts=(channels,), outputs=outputs)
        for rows in (44, 512, 2048)
        for channels, outputs in ((96, 96), (96, 384), (384, 96))
    ),
    *(
        Shape(op="linear", rows=rows, parts=(channels,), outputs=outputs)
        for rows in (256, 2048)
        for channels, outputs in ((1152, 1152), (1152, 4608), (4608, 1152))
    ),
    Shape(op="linear", rows=44, parts=(96, 384), outputs=96),
    Shape(op="linear", rows=2048, parts=(1152, 4608), outputs=1152),
    Shape(op="convolution", rows=512, parts=(32,), outputs=32, kernel=3),
    Shape(op="convolution", rows=512, parts=(64,), outputs=64, kernel=3),
    Shape(op="convolution", rows=512, parts=(64, 32), outputs=64, kernel=3),
    Shape(op="convolution", rows=512, parts=(64, 32), outputs=64, kernel=1),
    Shape(op="convolution", rows=2048, parts=(320,), outputs=320, kernel=3),
    Shape(op="convolution", rows=2048, parts=(640,), outputs=640, kernel=1),
    Shape(op="convolution", rows=2048, parts=(640, 320), outputs=640, kernel=3),
    Shape(op="convolution", rows=512, parts=(1280,), outputs=1280, kernel=3),
)

_STATIC = ("symmetric", "static")
VARIANTS: tuple[Variant, ...] = (
    Variant(name="symmetric"),
    Variant(name="shifted", segments=(("shifted", "static"),)),
    Variant(name="channel-outputs", channel_outputs=True),
    Variant(name="smoothed", smooth=True),
    Variant(name="per-token", segments=(("symmetric", "per_token"),)),
    Variant(name="per-step", segments=(("symmetric", "per_step"),)),
    Variant(name="dual-scale", segments=(("dual_scale", "static"),)),
    Variant(name="dual-full", segments=(("dual_full", "static"),)),
    Variant(name="dual-full-per-token", segments=(("dual_full", "per_token"),)),
    Variant(name="split", segments=(_STATIC, ("shifted", "static"))),
    Variant(name="split-dual", segments=(_STATIC, ("dual_full", "static"))),
    Variant(name="split-per-token", segments=(("symmetric", "per_token"),) * 2),
    Variant(name="w4", weight=WeightPlan(bits=4)),
    Variant(name="w4-only", segments=(("float", "static"),), weight=WeightPlan(bits=4, block=32)),
)


def measured(
    shape: Shape, target: Target, *, budget_s: float, threads: int | None = None
) -> list[dict[str, Any]]:
    """One row per variant that fits the shape and the target, the float site first."""
    backend = backend_for(target)
    with TemporaryDirectory(prefix="segquant-costs-") as scratch:
        site = one_site(shape, Path(scratch))
        name = site.facts.sites[0].name
        rows: list[dict[str, Any]] = [
            {"variant": "float", "treatment": None, "label": "float", "kernel": "float"}
        ]
        float_session = backend.float_session(
            load_graph(site.model), site.model.parent, threads=threads
        )
        calls: dict[str, Call] = {"float": lambda: float_session.run(site.inputs, ["y"])}
        for variant in VARIANTS:
            found = site.rewritten(variant, target) if variant.fits(shape) else None
            if found is None:
                continue
            path, planned = found
            proof = backend.integer_sites(path, [name], example=site.inputs)[name]
            calls[variant.name] = _call(backend.open(path, threads=threads), site.inputs)
            rows.append(
                {
                    "variant": variant.name,
                    "treatment": to_plain(planned.treatment),
                    "label": planned.treatment.label,
                    "kernel": proof.kernel,
                }
            )
        seconds = interleaved(calls, budget_s=budget_s, at_most=200, warm_up=3)
    for row in rows:
        own = seconds[row["variant"]]
        row |= {"target": target, "shape": asdict(shape), "runs": len(own)}
        row |= {"median_ms": float(np.median(own) * 1e3)}
        row |= {"quiet_ms": float(np.percentile(own, _QUIET) * 1e3)}
        row |= {"over_float": asdict(speedup(seconds["float"], own))}
        row |= {"over_symmetric": asdict(speedup(seconds["symmetric"], own))}
    return rows


def _call(session: Any, inputs: Mapping[str, Any]) -> Call:
    return lambda: session.run(inputs, ["y"])


def fitted(rows: Sequence[Mapping[str, Any]], target: Target, threads: int) -> CostTable:
    """The planner's table: coefficients that are not negative, least relative squares.

    The amount of every term in every case comes from the planner's own model, asked with a table
    that has one line. A whole site behind a Concat is left out: its time is the Concat's as well.
    """
    lines: list[CostLine] = []
    errors: list[float] = []
    for op in ("linear", "convolution"):
        cases = [row for row in rows if row["shape"]["op"] == op and not _behind_concat(row)]
        wanted = np.array([row["quiet_ms"] for row in cases])
        amounts = np.array([_amounts(row, op) for row in cases])
        # In nanoseconds all terms are of one magnitude after scaling by their largest amount.
        scale = np.maximum(amounts.max(axis=0), 1e-12)
        found, _ = nnls(amounts / scale / wanted[:, None], np.ones(len(cases)))
        errors += list(np.abs(amounts @ (found / scale) / wanted - 1.0))
        lines += [
            CostLine(op=op, term=term, nanoseconds=float(value))
            for term, value in zip(get_args(CostTerm), found / scale, strict=True)
            if value > 0.0
        ]
    return CostTable(
        target=target,
        hardware=hardware()["cpu"] + " " + hardware()["instructions"],
        threads=threads,
        versions=backend_for(target).versions(),
        batch=BATCH,
        median_error=float(np.median(errors)),
        lines=tuple(lines),
    )


def _behind_concat(row: Mapping[str, Any]) -> bool:
    treatment = row["treatment"]
    segments = 1 if treatment is None else len(treatment["segments"])
    return len(row["shape"]["parts"]) != segments


def _amounts(row: Mapping[str, Any], op: Any) -> list[float]:
    """Milliseconds of the case if one nanosecond were the price of one term alone, term by term."""
    shape = Shape(**{**row["shape"], "parts": tuple(row["shape"]["parts"])})
    planned = PlannedShape(
        rows=shape.rows,
        input_rows=shape.rows,
        channels=shape.channels,
        outputs=shape.outputs,
        taps=shape.kernel**2,
        groups=1,
        is_convolution=op == "convolution",
    )
    treatment = _treatment(row, shape)
    found = []
    for term in get_args(CostTerm):
        line = CostLine(op=op, term=term, nanoseconds=1.0)
        table = CostTable(
            target="onnxruntime",
            hardware="",
            threads=1,
            versions={},
            batch=BATCH,
            median_error=0.0,
            lines=(line,),
        )
        model = CostModel(table, "onnxruntime")
        found.append(model.input_ms(treatment, planned) + model.product_ms(treatment, planned))
    return found


def _treatment(row: Mapping[str, Any], shape: Shape) -> Treatment:
    if row["treatment"] is None:
        return Variant(name="float", weight=None).site_plan(shape, "site")[0].treatment
    return from_plain(row["treatment"], Treatment, origin="costs")


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without what its label says; ratios as [median, low, high]."""
    shape = Shape(**{**row["shape"], "parts": tuple(row["shape"]["parts"])})
    kept = ("target", "variant", "label", "kernel", "runs", "median_ms", "quiet_ms")
    ratios = {name: list(row[name].values()) for name in ("over_float", "over_symmetric")}
    return {"shape": shape.label, **{name: row[name] for name in kept}, **ratios}


def main() -> None:
    """Measure, write, and fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of measured shapes")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds per shape and target")
    parser.add_argument("--threads", type=int, help="by default all cores")
    parser.add_argument("--tables", type=Path, help="folder for a cost table per target")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for target in arguments.targets:
        for shape in SHAPES:
            rows += cell(
                arguments.work / f"{target}-{shape.label}.json",
                lambda shape=shape, target=target: measured(
                    shape, target, budget_s=arguments.budget, threads=arguments.threads
                ),
            )
    atomic_write_json(
        RESULTS,
        {"hardware": hardware(), "versions": versions(), "rows": [_brief(row) for row in rows]},
    )
    threads = arguments.threads or int(hardware()["cores"])
    for target in arguments.targets if arguments.tables else ():
        table = fitted([row for row in rows if row["target"] == target], target, threads)
        write_record(arguments.tables / f"{target}.yaml", table)
        print(f"{target}: median error {table.median_error:.0%}")


if __name__ == "__main__":
    main()
