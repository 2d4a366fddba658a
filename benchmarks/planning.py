"""Planning a model of SDXL's size: as many layers, with the widths of a small one.

    python -m benchmarks.planning [--work DIR]

writes a UNet of SDXL's configuration with a tenth of its widths and random weights, runs export,
calibrate, analyze, score and plan as `segquant-trt compile` would, each in a process of its own,
and writes benchmarks/results/planning.json: sites, and seconds and peak memory of every stage.
The time to plan depends on sites and options, not on widths; export, calibrate and score would
take longer at full width. Trials, which run the model under a handful of plans, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segquant_trt.bench.hardware import hardware, versions
from segquant_trt.records import GraphFacts, QuantPlan
from segquant_trt.records.child import die_with_parent
from segquant_trt.records.codec import read_record
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.scores import read_scores

RESULT = Path(__file__).parent / "results" / "planning.json"
BAR_S = 120.0
"""A plan shall be made within this time on two cores, once scores exist."""

SDXL: Mapping[str, Any] = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 128,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 6 * 32 + 64,
}
"""stabilityai/stable-diffusion-xl-base-1.0's, a tenth as wide."""

STAGES = ("export", "calibrate", "analyze", "score", "plan")


def main() -> None:
    """Run the stages and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder for the run, which is then kept")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage is not None:
        die_with_parent(arguments.parent)
        print(json.dumps(staged(arguments.work, arguments.stage)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        record = measured(arguments.work or Path(scratch))
    atomic_write_json(RESULT, record)
    print(json.dumps(record, indent=2))


def measured(work: Path) -> dict[str, Any]:
    """All stages on a fresh model, and what they made."""
    load = os.getloadavg()[0]
    parameters = write_unet(work / "unet")
    stages = {stage: _in_a_child(work, stage) for stage in STAGES}
    run = work / "run"
    facts = read_record(run / "facts.yaml", GraphFacts)
    scores = read_scores(run / "scores.safetensors")
    plan = read_record(run / "plan.yaml", QuantPlan)
    return {
        "model": "UNet2DConditionModel with SDXL's layers, a tenth as wide",
        "parameters": parameters,
        "sites": len(facts.sites),
        "options": sum(len(site.options) for site in scores.sites),
        "scores_bytes": (run / "scores.safetensors").stat().st_size,
        "stages": stages,
        "prediction_of": plan.preset,
        "bar_seconds": BAR_S,
        "load_average_before": round(load, 2),
        "hardware": hardware(),
        "versions": versions(),
    }


def write_unet(folder: Path) -> int:
    """Write the model; returns how many parameters it has."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    model = UNet2DConditionModel(**SDXL)
    model.to(torch.float16).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def staged(work: Path, stage: str) -> dict[str, float]:
    """Run one stage in this process."""
    from segquant_trt.pipeline import run_stage
    from segquant_trt.records.options import CompileOptions

    options = CompileOptions(model=str(work / "unet"), out=work / "run")
    started = time.perf_counter()
    run_stage(stage, options)
    seconds = time.perf_counter() - started
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(each.ru_utime + each.ru_stime for each in used), 2),
        "peak_rss_mib": max(each.ru_maxrss for each in used) >> 10,
    }


def _in_a_child(work: Path, stage: str) -> dict[str, float]:
    print(f"{stage} ...", file=sys.stderr, flush=True)
    command = ["--work", str(work), "--stage", stage, "--parent", str(os.getpid())]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.planning", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{stage}: {found}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    main()
