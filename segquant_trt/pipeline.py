"""The only module that knows every stage: what each reads, writes and depends on.

A stage runs when its inputs' digests, its options or this program's version have changed, or when
what it wrote is gone or altered; otherwise it is skipped. So an interrupted compilation continues
with the same command and ends in the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.models import identity
from segquant_trt.records import Benchmark, Manifest, Quality
from segquant_trt.records.codec import to_plain, write_record
from segquant_trt.records.files import atomic_write_json, sha256_file
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Progress, Silent
from segquant_trt.records.remembered import REMEMBERED, recall, remember
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import CompileResult, Stage, Work, settle

if TYPE_CHECKING:
    from segquant_trt.models.loop import DenoisingLoop

_SAMPLING = ("steps", "guidance_scale", "height", "width", "scheduler", "seed")
_STEPS = 20
_ZOO_GUIDANCE = 3.5
_HELD_OUT = 1_000_000  # verification seeds begin here, far from calibration's


def _export(work: Work) -> None:
    from segquant_trt.export import export

    def advance(fraction: float, text: str) -> None:
        work.progress.update(f"export: {text}", int(100 * fraction), 100)

    export(identity.source_of(work), work.run.path, on_progress=advance)


def _loop(work: Work) -> DenoisingLoop | None:
    from segquant_trt.models.loops import open_loop

    return open_loop(work.spec(), work.location(), work.options)


def _is_zoo(work: Work) -> bool:
    return work.spec().source.startswith("zoo:")


def _guidance(work: Work) -> float | None:
    given = work.options.guidance_scale
    return _ZOO_GUIDANCE if given is None and _is_zoo(work) else given


def _batch_size(work: Work) -> int:
    return 32 if _is_zoo(work) else 1  # seeds at once; guidance doubles them


def _samples(work: Work) -> int:
    # Of the 32 prompts that ship, the last eight are left for verification.
    return work.options.num_samples or (32 if _is_zoo(work) else 24)


def _calibrate(work: Work) -> None:
    from segquant_trt.calibrate import CalibrationRequest, calibrate

    options = work.options
    request = CalibrationRequest(
        loop=None if options.inputs else _loop(work),
        inputs=options.inputs,
        seeds=tuple(options.seed + i for i in range(_samples(work))),
        steps=options.steps or _STEPS,
        guidance_scale=_guidance(work),
        batch_size=_batch_size(work),
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


def _analyze(work: Work) -> None:
    from segquant_trt.analyze import analyze

    facts = analyze(work.run / "model.onnx", timestep=work.spec().timestep)
    write_record(work.run / "facts.yaml", facts)


def _plan(work: Work) -> None:
    from segquant_trt.plan import PlanRequest, make_plan
    from segquant_trt.records.calibration import check_checkpoint, read_calibration

    facts, calibration = work.run / "facts.yaml", work.run / "calibration.safetensors"
    seen = read_calibration(calibration)
    check_checkpoint(seen, calibration, work.spec(), work.run / "model.yaml")
    plan = make_plan(
        work.facts(),
        seen,
        PlanRequest.of(work.options),
        facts_sha256=sha256_file(facts),
        calibration_sha256=sha256_file(calibration),
    )
    write_record(work.run / "plan.yaml", plan)


def _rewrite(work: Work) -> None:
    from segquant_trt.rewrite import rewrite

    rewrite(
        work.run / "model.onnx",
        work.weights(),
        work.facts(),
        work.plan(),
        work.run / "quantized.onnx",
        on_progress=work.update("rewrite"),
    )
    identity.note_content(work)


def _build(work: Work) -> None:
    from segquant_trt.build import build

    build(work.run.path, work.spec(), work.facts(), work.plan(), out=work.run / "bundle")


def _verify(work: Work) -> None:
    from segquant_trt.serve import load
    from segquant_trt.verify import VerifyRequest, verify

    options = work.options
    zoo = _is_zoo(work)
    first, seeds = (_HELD_OUT, 64) if zoo else (_HELD_OUT + _samples(work), 8)
    quality = verify(
        work.run.path,
        work.weights(),
        work.spec(),
        load(work.run / "bundle", threads=options.threads).run,
        VerifyRequest(
            loop=None if options.verify_inputs else _loop(work),
            inputs=options.verify_inputs,
            calibrated_on=options.inputs,
            seeds=tuple(first + i for i in range(seeds)),
            judged=(1000 if options.full else 200) if zoo else 0,
            steps=options.steps or _STEPS,
            guidance_scale=_guidance(work),
            batch_size=_batch_size(work),
            threads=options.threads,
        ),
        on_progress=work.progress.update,
        on_note=work.progress.note,
    )
    atomic_write_json(work.run / "quality.json", to_plain(quality))


def _bench(work: Work) -> None:
    from segquant_trt.bench import bench
    from segquant_trt.serve import load

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


def _report(work: Work) -> None:
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


_EXPORTED = ("model.onnx", "model.yaml")
_LOCATION = "model.location.yaml"
_FLOAT = (*_EXPORTED, _LOCATION, "excerpt.safetensors")

STAGES: tuple[Stage, ...] = (
    Stage(
        name="export",
        inputs=(),
        outputs=(*_EXPORTED, _LOCATION),
        options=("model", "subfolder", "revision"),
        body=_export,
        identity=identity.of_checkpoint,
    ),
    Stage(
        name="calibrate",
        inputs=(*_EXPORTED, _LOCATION),
        outputs=("excerpt.safetensors", "calibration.safetensors", "recordings"),
        options=(*_SAMPLING, "num_samples", "device", "dtype"),
        body=_calibrate,
        identity=identity.of_calibration,
        further=("prompts", "inputs", "threads"),
    ),
    Stage(name="analyze", inputs=_EXPORTED, outputs=("facts.yaml",), options=(), body=_analyze),
    Stage(
        name="plan",
        inputs=("model.yaml", "facts.yaml", "calibration.safetensors"),
        outputs=("plan.yaml",),
        options=("target", "range_method", "weight_scales", "quantize_all", "keep_float"),
        body=_plan,
        editable=True,
    ),
    Stage(
        name="rewrite",
        inputs=("model.onnx", _LOCATION, "facts.yaml", "plan.yaml"),
        outputs=("quantized.onnx", "quantized.weights"),
        options=(),
        body=_rewrite,
    ),
    Stage(
        name="build",
        inputs=("quantized.onnx", "quantized.weights", "facts.yaml", "plan.yaml", "model.yaml"),
        outputs=("bundle",),
        options=(),
        body=_build,
        identity=identity.of_runtimes,
    ),
    Stage(
        name="verify",
        inputs=(*_FLOAT, "facts.yaml", "plan.yaml", "quantized.onnx", "bundle"),
        outputs=("quality.json", "images.safetensors"),
        options=(*_SAMPLING, "num_samples", "device", "dtype", "full"),
        body=_verify,
        identity=identity.of_verification,
        further=("prompts", "inputs", "verify_inputs", "threads"),
    ),
    Stage(
        name="bench",
        inputs=(*_FLOAT, "bundle"),
        outputs=("benchmark.json",),
        options=("threads",),
        body=_bench,
        identity=identity.of_runtimes,
    ),
    Stage(
        name="report",
        inputs=(
            "model.yaml",
            "facts.yaml",
            "plan.yaml",
            "bundle",
            "quality.json",
            "benchmark.json",
        ),
        outputs=("report.html",),
        options=(),
        body=_report,
    ),
)
_PRODUCERS = {name: stage.name for stage in STAGES for name in stage.outputs}


def compile_model(options: CompileOptions, *, progress: Progress | None = None) -> CompileResult:
    """Run every stage that is not up to date.

    Raises:
        SegQuantError: whatever keeps a stage from finishing.
    """
    return _run(STAGES, options, progress or Silent(), told=REMEMBERED)


def run_stage(
    stage: str,
    options: CompileOptions,
    *,
    progress: Progress | None = None,
    given: Collection[str] | None = None,
) -> CompileResult:
    """Run one stage; the stages before it must have run.

    With `given`, options that it does not name are those that the folder was told before.

    Raises:
        SegQuantError: an input is missing, or whatever keeps the stage from finishing.
    """
    row = next(row for row in STAGES if row.name == stage)
    progress = progress or Silent()
    if given is not None:
        options = recall(options, row.reads, given=given, progress=progress)
    return _run((row,), options, progress, told=row.reads)


def compile(model: Any, *, out: str | Path, **options: Any) -> CompileResult:
    """Compile a named or loaded model into `out`; keywords are the fields of CompileOptions.

    Raises:
        SegQuantError: a bad option, or whatever keeps a stage from finishing.
    """
    from segquant_trt.models.saved import named_model

    name = named_model(model, Path(out) / "source")
    return compile_model(CompileOptions.from_keywords(name, out, **options))


def _run(
    rows: tuple[Stage, ...], options: CompileOptions, progress: Progress, *, told: Collection[str]
) -> CompileResult:
    from segquant_trt.report.summary import summarize

    run = RunFolder(options.out)
    work = Work(run=run, options=options, progress=progress)
    skipped: list[str] = []
    with run.locked():
        for row in rows:
            run.require(row.inputs, stage=row.name, producers=_PRODUCERS)
            if settle(row, work, forced=options.force):
                skipped.append(row.name)
            remember(options, told)
        if len(skipped) == len(rows):
            progress.note(f"nothing to do: {run.path} is up to date")
        return CompileResult(run=run.path, summary=summarize(run.path), skipped=tuple(skipped))


def generate(
    bundle: Path, options: CompileOptions, *, progress: Progress | None = None
) -> CompileResult:
    """Images from a bundle beside the float model's, from the same seeds, into `options.out`.

    The float model is the run folder's that the bundle lies in, or `options.model`.

    Raises:
        SegQuantError: no float model, a denoiser without a pipeline, or an unusable bundle.
    """
    from segquant_trt.backends.denoise import float_denoise
    from segquant_trt.report.contact_sheet import write_images
    from segquant_trt.serve import load
    from segquant_trt.serve.pictures import picture_pairs
    from segquant_trt.verify import psnr_db, ssim

    progress = progress or Silent()
    quantized = load(bundle, threads=options.threads).run
    work = Work(run=_float_run(bundle, options, progress), options=options, progress=progress)
    zoo = _is_zoo(work)
    images = picture_pairs(
        _loop(work),
        float_denoise(work.run / "model.onnx", work.weights(), threads=options.threads),
        quantized,
        seeds=[options.seed + i for i in range(options.num_samples or (20 if zoo else 4))],
        steps=options.steps or _STEPS,
        guidance_scale=_guidance(work),
        batch_size=_batch_size(work),
        on_progress=progress.update,
    )
    pair = (images.float_images, images.quantized_images)
    sheet = write_images(options.out, images)
    summary = {"sheet": str(sheet), "psnr_db": psnr_db(*pair), "ssim": ssim(*pair)}
    return CompileResult(run=options.out, summary=summary, skipped=())


def _float_run(bundle: Path, options: CompileOptions, progress: Progress) -> RunFolder:
    beside = RunFolder(bundle.resolve().parent)
    if (beside / "model.onnx").exists() and options.model is None:
        return beside
    if options.model is None:
        raise SegQuantError(
            f"{bundle} does not lie in a run folder, so its float model is not known",
            hint="name the model that it was compiled from with --model",
        )
    exported = replace(options, out=options.out / ".float")
    run_stage("export", exported, progress=progress)
    return RunFolder(exported.out)
