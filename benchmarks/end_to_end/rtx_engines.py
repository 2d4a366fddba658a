"""What TensorRT-RTX makes of every zoo model: sites in 8 bits, kernels, engine size, build time.

    python -m benchmarks.end_to_end.rtx_engines --work DIR [--models ...]

Builds without a GPU, so it tells nothing of speed. `float16` is the same graph without codes.
Shapes are fixed: those that the model is made for, at guidance batch 2. Writes
`benchmarks/results/rtx_engines.json` and the table in benchmarks/README.md. Runs under DIR are
resumed, finished engines are files there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablation.cells import cell
from benchmarks.marked_blocks import ROOT, write_block
from segquant_trt.backends.emission import StoredArrays
from segquant_trt.backends.tensorrt.rtx import ShapeRange, available, build, products_of, prove
from segquant_trt.backends.tensorrt.rtx.prove import fused_attention, kernels
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models.zoo import ZOO
from segquant_trt.pipeline import run_stage
from segquant_trt.pipeline.magnitudes import magnitudes
from segquant_trt.pipeline.planning import planning_records
from segquant_trt.plan import make_plan
from segquant_trt.records import ModelSpec, QuantPlan, left_in_float
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.options import CompileOptions, PresetName
from segquant_trt.records.progress import Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import Work
from segquant_trt.rewrite import rewrite

RESULTS = ROOT / "benchmarks" / "results" / "rtx_engines.json"
CAPABILITIES = ("sm_80", "sm_89", "sm_120")
PLANS: tuple[tuple[str, PresetName], ...] = (
    ("float16", "plain"),
    ("plain", "plain"),
    ("segquant", "segquant"),
    ("auto", "auto"),
)
_BATCH = 2


def ready(model: str, folder: Path) -> Work:
    """A run folder with scores."""
    options = CompileOptions(model=f"zoo:{model}", out=folder, target="tensorrt-rtx")
    for stage in ("export", "calibrate", "analyze", "score"):
        run_stage(stage, options)
    return Work(run=RunFolder(folder), options=options, progress=Silent())


def planned(work: Work, name: str, preset: PresetName) -> QuantPlan:
    """The plan of a preset; `float16` leaves all of its sites as they are."""
    facts, scores, table, request, digests = planning_records(work)
    plan = make_plan(facts, scores, table, replace(request, preset=preset), digests)
    if name != "float16":
        return plan
    widths = {site.name: site.in_features for site in facts.sites}
    sites = (replace(own, treatment=left_in_float(widths[own.site])) for own in plan.sites)
    return replace(plan, sites=tuple(sites))


def engines(model: str, name: str, preset: PresetName, work_folder: Path) -> list[dict[str, Any]]:
    """One plan's engines for every kind of GPU."""
    print(f"{model}, {name}", file=sys.stderr, flush=True)
    work = ready(model, work_folder / model)
    plan = planned(work, name, preset)
    out = work_folder / f"{model}-{name}" / "quantized.onnx"
    rewrite(
        work.run / "model.onnx",
        work.weights(),
        work.facts(),
        plan,
        out,
        arrays=StoredArrays(work.run / "scores.safetensors", plan),
        timestep=work.spec().timestep,
        largest=magnitudes(work, plan.target),
    )
    return [_engine(model, name, plan, out, work.spec(), each) for each in CAPABILITIES]


def _engine(
    model: str, name: str, plan: QuantPlan, path: Path, spec: ModelSpec, capability: str
) -> dict[str, Any]:
    engine = build(path, capability=capability, profiles=(_profile(spec),))
    report = engine.report
    products = products_of(load_graph(path))
    wanted = [site.site for site in plan.sites if site.treatment.is_integer]
    proofs = prove(report, {site: products.get(site, ()) for site in wanted})
    return {
        "model": model,
        "plan": name,
        "capability": capability,
        "sites": len(plan.sites),
        "sites_planned": len(wanted),
        "sites_proven": sum(proof.integer for proof in proofs.values()),
        "kernels": len(kernels(report)),
        "attentions_fused": len(fused_attention(report)),
        "engine_bytes": report.engine_bytes,
        "weights_bytes": report.weights_bytes,
        "scratch_bytes": report.scratch_bytes,
        "build_seconds": round(report.seconds, 2),
    }


def _profile(spec: ModelSpec) -> dict[str, ShapeRange]:
    lengths = {axis.name: axis.typical for axis in spec.axes}
    lengths |= {axis.name: _BATCH for axis in spec.axes if axis.name == "batch"}
    return {
        tensor.name: ShapeRange.fixed(
            *(lengths[axis] if isinstance(axis, str) else axis for axis in tensor.shape)
        )
        for tensor in spec.inputs
    }


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows as Markdown, one line per model and plan."""
    yield "| model | plan | sites in 8 bits / planned / all | kernels | engine | build |"
    yield "|-|-|-|-|-|-|"
    pairs = dict.fromkeys((row["model"], row["plan"]) for row in rows)
    for model, plan in pairs:
        own = [row for row in rows if (row["model"], row["plan"]) == (model, plan)]
        sites = "/".join(dict.fromkeys(str(row["sites_proven"]) for row in own))
        counts = " / ".join(str(row["kernels"]) for row in own)
        sizes = " / ".join(f"{row['engine_bytes'] / 1e6:.1f}" for row in own)
        times = " / ".join(f"{row['build_seconds']:.1f}" for row in own)
        yield (
            f"| {model} | {plan} | {sites} / {own[0]['sites_planned']} / {own[0]['sites']} | "
            f"{counts} | {sizes} MB | {times} s |"
        )


def main() -> int:
    """Build what is missing, then tabulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=ZOO, default=list(ZOO))
    arguments = parser.parse_args()
    if available() is None:
        print("TensorRT-RTX is not installed: pip install -e '.[rtx]'", file=sys.stderr)
        return 1
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        for name, preset in PLANS:
            path = arguments.work / "cells" / f"{model}-{name}.json"
            rows += cell(path, partial(engines, model, name, preset, arguments.work))
    lines = list(table(rows))
    print("\n".join(lines))
    record = {
        "hardware": hardware(),
        "versions": versions() | {"tensorrt-rtx": available()},
        "capabilities": CAPABILITIES,
        "rows": rows,
    }
    atomic_write_json(RESULTS, record)
    write_block(ROOT / "benchmarks" / "README.md", "rtx_engines", "\n".join(lines))
    return 0 if all(row["sites_proven"] == row["sites_planned"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
