"""Latency at full size: the zoo's architectures with wide layers and made-up weights.

    python -m benchmarks.ablation.full_size MODEL --work DIR --plan NAME=RUN [--plan NAME=RUN ...]

measures the plans of finished runs of a zoo model, carried over site by site to a model of the
same layers but published widths (1024 tokens at width 1152; 32x32 latents at widths 640 and 1280),
beside the float model. Ratios come from interleaved runs in one process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.transfer import transfer_plan
from segquant_trt.backends import backend_for
from segquant_trt.bench.costs.interleaved import Ratio, interleaved, speedup
from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.build.proof import prove_integer
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.models import family_for
from segquant_trt.models.loop import Array
from segquant_trt.models.zoo import zoo_path
from segquant_trt.models.zoo_loop import FLUX, SD3, UNET, denoiser_of
from segquant_trt.records import CheckpointLocation, GraphFacts, ModelSpec, QuantPlan, Target
from segquant_trt.records.codec import read_record, write_record

TWIN = "-outliers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Overrides of a zoo model's config.json, and the lengths of the dynamic axes."""

    config: Mapping[str, Any]
    lengths: Mapping[str, int]


FULL: dict[str, Size] = {
    FLUX: Size(
        config={
            "attention_head_dim": 128,
            "num_attention_heads": 9,
            "axes_dims_rope": (16, 56, 56),
            "in_channels": 64,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
        },
        lengths={"tokens": 1024, "text": 256},
    ),
    SD3: Size(
        config={
            "attention_head_dim": 64,
            "num_attention_heads": 18,
            "caption_projection_dim": 1152,
            "in_channels": 16,
            "out_channels": 16,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 96,
            "sample_size": 64,
        },
        lengths={"height": 64, "width": 64, "text": 154},
    ),
    UNET: Size(
        config={
            "attention_head_dim": (10, 20),
            "block_out_channels": (640, 1280),
            "cross_attention_dim": 2048,
            "in_channels": 4,
            "out_channels": 4,
            "norm_num_groups": 32,
            "sample_size": 32,
        },
        lengths={"height": 32, "width": 32, "text": 77},
    ),
}


_COST_SCALES: dict[str, str] = {FLUX: "58,12", SD3: "55,12", UNET: "4,20"}
"""Rows and width of the sizes above over the zoo's, rows averaged by the work of their sites: text
and image tokens, which share most sites, do not grow alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeModel:
    """An exported model of full size."""

    run: Path
    weights: Path
    spec: ModelSpec
    facts: GraphFacts
    inputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantLatency:
    """One variant: its median, and how many times faster it is than the float model.

    `over_plain` is the same against the first plan that was measured beside it.
    """

    median_ms: float
    over_float: Ratio
    over_plain: Ratio


def cost_scale(name: str) -> str:
    """What `--cost-scale` prices the zoo model `name` at full size."""
    class_name, _ = denoiser_of(zoo_path(name.removesuffix(TWIN)))
    return _COST_SCALES[class_name]


def large_model(
    name: str, folder: Path, *, batch: int, sizes: Mapping[str, Size] | None = None
) -> LargeModel:
    """Write and export the model of the zoo model `name`, or find it in `folder`."""
    from segquant_trt.analyze import analyze
    from segquant_trt.export import export
    from segquant_trt.models.source import resolve

    class_name, component = denoiser_of(zoo_path(name.removesuffix(TWIN)))
    size = (sizes or FULL)[class_name]
    run = folder / "run"
    if not (run / "facts.yaml").exists():
        denoiser = folder / component
        _write_denoiser(name, class_name, component, size, denoiser)
        lengths = {**size.lengths, "batch": batch}
        spec = export(resolve(str(denoiser)), run, typical=lengths)
        write_record(run / "facts.yaml", analyze(run / "model.onnx", timestep=spec.timestep))
    spec = read_record(run / "model.yaml", ModelSpec)
    family = family_for(spec.class_name)
    lengths = {axis.name: axis.typical for axis in spec.axes} | {"batch": batch}
    return LargeModel(
        run=run,
        weights=Path(read_record(run / "model.location.yaml", CheckpointLocation).folder),
        spec=spec,
        facts=read_record(run / "facts.yaml", GraphFacts),
        inputs=family.example_inputs(spec.config, lengths),
    )


def _write_denoiser(name: str, class_name: str, component: str, size: Size, folder: Path) -> None:
    """Freshly initialised weights in float16, as zoo checkpoints are stored."""
    import diffusers
    import torch

    model_class = getattr(diffusers, class_name)
    config = dict(model_class.load_config(zoo_path(name.removesuffix(TWIN)) / component))
    torch.manual_seed(0)
    model = model_class.from_config({**config, **size.config})
    model.to(torch.float16).save_pretrained(folder)


def latencies(
    model: LargeModel,
    plans: Mapping[str, tuple[QuantPlan, GraphFacts]],
    *,
    budget_s: float,
    threads: int | None = None,
) -> dict[str, VariantLatency]:
    """Latency of the float model and of every plan, the first being what others are compared to.

    Args:
        plans: plans of the small model and its facts, by name; all for one target.

    Raises:
        SegQuantError: a planned site would not run in integers at this size.
    """
    target: Target = next(iter(plans.values()))[0].target
    backend = backend_for(target)
    graph = load_graph(model.run / "model.onnx")
    sessions = {"float": backend.float_session(graph, model.weights, threads=threads)}
    for name, (plan, facts) in plans.items():
        path = _rewritten(model, name, plan, facts)
        sessions[name] = backend.open(path, threads=threads)
    output = graph.graph.output[0].name

    def call(name: str) -> Any:
        return lambda: sessions[name].run(model.inputs, [output])

    seconds = interleaved({name: call(name) for name in sessions}, budget_s=budget_s)
    plain = next(iter(plans))
    return {
        name: VariantLatency(
            median_ms=float(np.median(found) * 1e3),
            over_float=speedup(seconds["float"], found),
            over_plain=speedup(seconds[plain], found),
        )
        for name, found in seconds.items()
    }


def _rewritten(model: LargeModel, name: str, plan: QuantPlan, facts: GraphFacts) -> Path:
    """The large graph under a small plan; every integer site is proven to be one."""
    from segquant_trt.rewrite import rewrite

    moved, arrays = transfer_plan(plan, facts, model.facts)
    path = model.run / f"{name}-{plan.target}.onnx"
    rewrite(model.run / "model.onnx", model.weights, model.facts, moved, path, arrays=arrays)
    prove_integer(backend_for(plan.target), path, model.spec, moved)
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model of the zoo")
    parser.add_argument("--work", type=Path, required=True, help="folder for the large model")
    parser.add_argument("--plan", action="append", required=True, metavar="NAME=RUN")
    parser.add_argument("--batch", type=int, default=2, help="samples in a call (guidance: 2)")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds to measure")
    arguments = parser.parse_args()
    model = large_model(arguments.model, arguments.work, batch=arguments.batch)
    plans = {}
    for text in arguments.plan:
        name, _, run = text.partition("=")
        plans[name] = (
            read_record(Path(run) / "plan.yaml", QuantPlan),
            read_record(Path(run) / "facts.yaml", GraphFacts),
        )
    found = latencies(model, plans, budget_s=arguments.budget)
    record = {
        "model": arguments.model,
        "shapes": {name: list(array.shape) for name, array in model.inputs.items()},
        "latency_batch": arguments.batch,
        "variants": {name: asdict(figure) for name, figure in found.items()},
        "hardware": hardware(),
        "versions": versions(),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
