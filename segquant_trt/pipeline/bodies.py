"""What each stage does in a run folder: read records, call the stage, write its record."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from segquant_trt.models import identity
from segquant_trt.pipeline.magnitudes import magnitudes
from segquant_trt.pipeline.planning import note_expectations
from segquant_trt.pipeline.sampling import (
    STEPS,
    batch_size_of,
    guidance_of,
    is_zoo,
    loop_of,
    sample_count,
)
from segquant_trt.records import Benchmark, Manifest, Quality
from segquant_trt.records.codec import to_plain, write_record
from segquant_trt.records.files import atomic_write_json
from segquant_trt.records.stage import Work

if TYPE_CHECKING:
    from segquant_trt.rewrite import Freezing

_HELD_OUT = 1_000_000  # verification's seeds lie so far behind calibration's, trials' in between


def export_stage(work: Work) -> None:
    """Write `model.onnx`, `model.yaml` and the checkpoint's location."""
    from segquant_trt.export import export

    def advance(fraction: float, text: str) -> None:
        work.progress.update(f"export: {text}", int(100 * fraction), 100)

    export(identity.source_of(work), work.run.path, on_progress=advance)


def calibrate_stage(work: Work) -> None:
    """Write `calibration.safetensors`, an excerpt of the inputs, and the recordings."""
    from segquant_trt.calibrate import CalibrationRequest, calibrate

    options = work.options
    request = CalibrationRequest(
        loop=None if options.inputs else loop_of(work),
        inputs=options.inputs,
        seeds=tuple(options.seed + i for i in range(sample_count(work))),
        steps=options.steps or STEPS,
        guidance_scale=guidance_of(work),
        batch_size=batch_size_of(work),
        threads=options.threads,
    )
    origin = calibrate(
        work.run.path, work.weights(), work.spec(), request, on_progress=work.progress.update
    )
    if origin == "synthetic":
        work.progress.note(
            "calibrated on synthetic inputs: ranges are those of noise, and image quality may be "
            "far below what recorded inputs give (record some and pass --inputs)"
        )


def analyze_stage(work: Work) -> None:
    """Write `facts.yaml`."""
    from segquant_trt.analyze import analyze

    options = work.options
    facts = analyze(
        work.run / "model.onnx",
        timestep=options.timestep or work.spec().timestep,
        prompts=options.prompt_inputs,
    )
    write_record(work.run / "facts.yaml", facts)


def score_stage(work: Work) -> None:
    """Write `scores.safetensors`."""
    from segquant_trt.records.calibration import check_checkpoint, read_calibration
    from segquant_trt.score import ScoreRequest, score

    calibration = work.run / "calibration.safetensors"
    check_checkpoint(
        read_calibration(calibration), calibration, work.spec(), work.run / "model.yaml"
    )
    score(
        work.run.path,
        work.weights(),
        work.spec(),
        work.facts(),
        ScoreRequest(
            weight_bits=(work.options.weight_bits,),
            weight_block=work.options.block(),
            weight_only=work.options.weight_only,
            range_method=work.options.range_method,
            threads=work.options.threads,
        ),
        on_progress=work.progress.update,
        on_note=work.progress.note,
    )


def rewrite_stage(work: Work) -> None:
    """Write `quantized.onnx` and its data."""
    from segquant_trt.backends.emission import StoredArrays
    from segquant_trt.rewrite import rewrite

    plan = work.plan()
    removed = rewrite(
        work.run / "model.onnx",
        work.weights(),
        work.facts(),
        plan,
        work.run / "quantized.onnx",
        arrays=StoredArrays(work.run / "scores.safetensors", plan),
        timestep=work.spec().timestep,
        freezing=_freezing(work),
        hoisting=work.options.hoist_prompt,
        largest=magnitudes(work, plan.target),
        on_progress=work.update("rewrite"),
    )
    macs = sum(site.macs_per_sample for site in plan.sites) or 1
    if removed.frozen is not None:
        work.progress.note(
            f"{len(removed.frozen.sites)} sites ({removed.frozen.macs_per_sample / macs:.2%} of "
            f"the MACs) became tables of {len(removed.frozen.timesteps)} timesteps"
        )
    if removed.hoisted is not None:
        work.progress.note(
            f"{len(removed.hoisted.sites)} sites ({removed.hoisted.macs_share:.2%} of the MACs) "
            "run once per prompt"
        )
    for reason, count in Counter(island.reason for island in removed.islands).items():
        work.progress.note(f"{count} nodes stay in float32: each {reason}")
    identity.note_content(work)


def _freezing(work: Work) -> Freezing | None:
    from segquant_trt.models.loops import scheduled_timesteps
    from segquant_trt.rewrite import Freezing

    options = work.options
    if options.freeze_schedule is None:
        return None
    return Freezing(
        schedule=options.freeze_schedule,
        timesteps=scheduled_timesteps(work.spec(), work.location(), options),
        fallback=options.fallback,
    )


def build_stage(work: Work) -> None:
    """Write the bundle."""
    from segquant_trt.build import build

    build(work.run.path, work.spec(), work.facts(), work.plan(), out=work.run / "bundle")


def verify_stage(work: Work) -> None:
    """Write `quality.json` and the images of the report."""
    from segquant_trt.backends import backend_for
    from segquant_trt.serve import load
    from segquant_trt.verify import VerifyRequest, verify

    options = work.options
    zoo = is_zoo(work)
    held_out = options.seed + _HELD_OUT
    first, seeds = (held_out, 64) if zoo else (held_out + sample_count(work), 8)
    bundle = load(work.run / "bundle", threads=options.threads)
    quality = verify(
        work.run.path,
        work.weights(),
        work.spec(),
        bundle.run,
        VerifyRequest(
            loop=None if options.verify_inputs else loop_of(work),
            inputs=options.verify_inputs,
            calibrated_on=options.inputs,
            seeds=tuple(first + i for i in range(seeds)),
            judged=(1000 if options.full else 200) if zoo else 0,
            steps=options.steps or STEPS,
            guidance_scale=guidance_of(work),
            batch_size=batch_size_of(work),
            threads=options.threads,
        ),
        on_progress=work.progress.update,
        on_note=work.progress.note,
    )
    if bundle.fallback_calls:
        work.progress.note(
            f"{bundle.fallback_calls} calls were off the frozen schedule and ran on the fallback: "
            "the figures are partly its own (--steps and --scheduler set what is verified)"
        )
    stand_in = backend_for(bundle.manifest.target).stand_in
    if stand_in is not None:
        work.progress.note(f"figures of quality are those of {stand_in}")
    note_expectations(work, quality)
    atomic_write_json(work.run / "quality.json", to_plain(quality))


def bench_stage(work: Work) -> None:
    """Write `benchmark.json`."""
    from segquant_trt.backends import backend_for
    from segquant_trt.bench import bench, unmeasured
    from segquant_trt.report.summary import read_json_record
    from segquant_trt.serve import load

    target = work.plan().target
    if backend_for(target).stand_in is not None:
        manifest = read_json_record(work.run / "bundle" / "manifest.json", Manifest)
        why = f"{target} needs a GPU, and none was used"
        atomic_write_json(
            work.run / "benchmark.json", to_plain(unmeasured(work.run.path, manifest, why))
        )
        work.progress.note(f"no latency: {why}")
        return
    bundle = load(work.run / "bundle", threads=work.options.threads)
    figures = bench(
        work.run.path,
        work.weights(),
        work.spec(),
        bundle.manifest,
        bundle.run,
        threads=work.options.threads,
        on_run=work.update("bench"),
    )
    atomic_write_json(work.run / "benchmark.json", to_plain(figures))


def report_stage(work: Work) -> None:
    """Write `report.html`."""
    from segquant_trt.records.images import load_images
    from segquant_trt.report import write_report
    from segquant_trt.report.summary import read_json_record

    run = work.run
    images = run / "images.safetensors"
    names = ("model.onnx", "facts.yaml", "calibration.safetensors", "plan.yaml", "bundle")
    write_report(
        run / "report.html",
        spec=work.spec(),
        facts=work.facts(),
        plan=work.plan(),
        manifest=read_json_record(run / "bundle" / "manifest.json", Manifest),
        quality=read_json_record(run / "quality.json", Quality),
        benchmark=read_json_record(run / "benchmark.json", Benchmark),
        images=load_images(images) if images.exists() else None,
        digests=run.digests(names),
    )
