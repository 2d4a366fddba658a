"""The whole stage: open the three denoisers, compare, rank the sites."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from segquant_trt.backends.denoise import float_denoise, literal_denoise
from segquant_trt.backends.emission import StoredArrays
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.frozen_stamp import frozen_steps
from segquant_trt.graph.hoisted_stamp import hoisted_prompt
from segquant_trt.models.judge import open_judge
from segquant_trt.models.loop import Array, Denoise, DenoisingLoop
from segquant_trt.records import GraphFacts, ModelSpec, Quality, QuantPlan, SiteError
from segquant_trt.records.codec import read_record
from segquant_trt.records.files import sha256_file
from segquant_trt.records.images import save_images
from segquant_trt.records.recordings import open_recordings
from segquant_trt.records.step_rows import on_frozen_steps
from segquant_trt.verify.arithmetic import check_arithmetic
from segquant_trt.verify.float16 import with_float16_activations
from segquant_trt.verify.free_running import Sampling
from segquant_trt.verify.quality import Denoisers, Verification, verify_inputs, verify_loop
from segquant_trt.verify.site_errors import FloatModel, site_errors
from segquant_trt.verify.temporal import temporal_features

_INPUTS_BATCH = 16
_INPUTS_ELEMENTS = 1 << 16  # of the prediction: attention takes memory by the square of its size
_TEMPORAL_BATCH = 4
_RANKED_MODEL_BYTES = 1 << 28  # ranking loads the model once per site


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """How to compare: along `loop`, else on held-out `inputs`, else on what calibration saw.

    `judged` is the number of images to classify, for models that come with a classifier.
    """

    loop: DenoisingLoop | None
    inputs: Path | None
    calibrated_on: Path | None
    seeds: tuple[int, ...]
    judged: int
    steps: int
    guidance_scale: float | None
    batch_size: int
    threads: int | None


def verify(
    run: Path,
    weights_folder: Path,
    spec: ModelSpec,
    quantized: Denoise,
    request: VerifyRequest,
    *,
    on_progress: Callable[[str, int, int], None],
    on_note: Callable[[str], None],
) -> Quality:
    """Compare the bundle of a run folder with its float model; writes `images.safetensors`.

    `quantized` is the loaded bundle.

    Raises:
        SegQuantError: the bundle or the inputs are unusable, or the runtime computes something
            else than the plan.
    """
    model = load_graph(run / "model.onnx")
    facts = read_record(run / "facts.yaml", GraphFacts)
    denoisers = Denoisers(
        reference=float_denoise(model, weights_folder, threads=request.threads, lean=True),
        quantized=quantized,
        float16=float_denoise(
            with_float16_activations(model, facts),
            weights_folder,
            threads=request.threads,
            lean=True,
        ),
    )
    frozen = frozen_steps(load_graph(run / "quantized.onnx"))
    excerpt = open_recordings(run / "excerpt.safetensors", spec)
    manifest = sha256_file(run / "bundle" / "manifest.json")
    check_arithmetic(
        denoisers.reference,
        literal_denoise(run / "quantized.onnx", threads=request.threads),
        quantized,
        [on_frozen_steps(batch, frozen) for batch in excerpt.batches(_batch_size(spec))],
        target=read_record(run / "plan.yaml", QuantPlan).target,
    )
    first = request.seeds[0]
    verification = Verification(
        seeds=request.seeds,
        judged_seeds=tuple(first + i for i in range(max(request.judged, len(request.seeds)))),
        sampling=Sampling(
            steps=request.steps,
            guidance_scale=request.guidance_scale,
            batch_size=request.batch_size,
        ),
        timestep=spec.timestep,
        manifest_sha256=manifest,
    )
    (run / "images.safetensors").unlink(missing_ok=True)
    if request.loop is not None:
        judge = open_judge(spec) if request.judged else None
        quality, images = verify_loop(
            request.loop, denoisers, verification, judge=judge, on_progress=on_progress
        )
        if images is not None:
            save_images(run / "images.safetensors", images)
    else:
        batches = _held_out(run, spec, request, on_note)
        quality = verify_inputs(batches, denoisers, verification)
    # Sessions keep the memory of their largest call; ranking needs that for its own.
    del denoisers
    hoisted = hoisted_prompt(load_graph(run / "quantized.onnx"))
    absent = [site for part in (frozen, hoisted) if part is not None for site in part.sites]
    ranked = _ranked(run, weights_folder, spec, absent, request, on_progress, on_note)
    plan = read_record(run / "plan.yaml", QuantPlan)
    features = (
        ()
        if spec.timestep is None
        else temporal_features(
            FloatModel(graph=model, facts=facts, folder=weights_folder),
            plan,
            StoredArrays(run / "scores.safetensors", plan),
            next(iter(excerpt.batches(_TEMPORAL_BATCH))),
            [step.timestep for step in quality.steps],
            timestep=spec.timestep,
            frozen=frozen,
            hoisted=hoisted,
            threads=request.threads,
        )
    )
    return replace(quality, site_errors=ranked, temporal=features)


def _batch_size(spec: ModelSpec) -> int:
    """How many recorded samples go through a graph at once."""
    typical = {axis.name: axis.typical for axis in spec.axes} | {"batch": 1}
    elements = math.prod(
        typical[axis] if isinstance(axis, str) else axis for axis in spec.output.shape
    )
    return max(1, min(_INPUTS_BATCH, _INPUTS_ELEMENTS // elements))


def _held_out(
    run: Path, spec: ModelSpec, request: VerifyRequest, on_note: Callable[[str], None]
) -> Iterable[Mapping[str, Array]]:
    path = request.inputs or request.calibrated_on or run / "excerpt.safetensors"
    if request.inputs is None:
        on_note(
            "verified on the calibration's own inputs: pass --verify-inputs for figures on "
            "inputs that calibration has not seen"
        )
    return open_recordings(path, spec).batches(_batch_size(spec))


def _ranked(
    run: Path,
    weights_folder: Path,
    spec: ModelSpec,
    absent: Collection[str],
    request: VerifyRequest,
    on_progress: Callable[[str, int, int], None],
    on_note: Callable[[str], None],
) -> tuple[SiteError, ...]:
    if spec.size_bytes_float > _RANKED_MODEL_BYTES:
        on_note("the model is too large to rank its sites by running each alone")
        return ()
    model = FloatModel(
        graph=load_graph(run / "model.onnx"),
        facts=read_record(run / "facts.yaml", GraphFacts),
        folder=weights_folder,
    )
    excerpt = open_recordings(run / "excerpt.safetensors", spec)
    plan = read_record(run / "plan.yaml", QuantPlan)
    return site_errors(
        model,
        plan,
        list(excerpt.batches(_batch_size(spec))),
        arrays=StoredArrays(run / "scores.safetensors", plan),
        timestep=spec.timestep,
        absent=absent,
        threads=request.threads,
        on_site=lambda done, total: on_progress("rank sites", done, total),
    )
