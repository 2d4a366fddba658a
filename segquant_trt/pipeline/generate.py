"""Images from a bundle beside those of its float model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.pipeline.run import run_stage
from segquant_trt.pipeline.sampling import STEPS, batch_size_of, guidance_of, is_zoo, loop_of
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.progress import Progress, Silent
from segquant_trt.records.run_folder import RunFolder
from segquant_trt.records.stage import CompileResult, Work


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
    zoo = is_zoo(work)
    images = picture_pairs(
        loop_of(work),
        float_denoise(work.run / "model.onnx", work.weights(), threads=options.threads),
        quantized,
        seeds=[options.seed + i for i in range(options.num_samples or (20 if zoo else 4))],
        steps=options.steps or STEPS,
        guidance_scale=guidance_of(work),
        batch_size=batch_size_of(work),
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
