"""Image pairs of a float and a quantised denoiser from the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segquant_trt.errors import SegQuantError
from segquant_trt.models.loop import Denoise, DenoisingLoop, Float32
from segquant_trt.records.images import ReportImages


def picture_pairs(
    loop: DenoisingLoop | None,
    reference: Denoise,
    quantized: Denoise,
    *,
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float | None,
    batch_size: int,
    on_progress: Callable[[str, int, int], None],
) -> ReportImages:
    """Run the loop once with each denoiser.

    Raises:
        SegQuantError: there is no loop, or it decodes no images.
    """
    if loop is None:
        raise SegQuantError(
            "a denoiser without its pipeline makes no images",
            hint="compile the pipeline's folder, or use load() in your own loop",
        )

    def images(label: str, denoise: Denoise) -> Float32:
        found = loop.sample(
            denoise,
            seeds=seeds,
            steps=steps,
            guidance_scale=guidance_scale,
            batch_size=batch_size,
            on_step=lambda done, total: on_progress(label, done, total),
        ).images
        if found is None:
            raise SegQuantError(
                "the pipeline decodes no images", hint="compile a pipeline with a VAE"
            )
        return found

    return ReportImages(
        float_images=images("float images", reference),
        quantized_images=images("quantised images", quantized),
        seeds=tuple(seeds),
        labels=tuple(loop.condition(seed) for seed in seeds),
    )
