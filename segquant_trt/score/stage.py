"""The whole stage: gains by backward passes, then every group's options, one group at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.models import family_for
from segquant_trt.models.checkpoint import find_checkpoint
from segquant_trt.models.torch_module import load_module
from segquant_trt.records import GraphFacts, LinearSite, ModelSpec, WeightPlan
from segquant_trt.records.calibration import Calibration, read_calibration
from segquant_trt.records.files import sha256_file
from segquant_trt.records.options import RangeMethod
from segquant_trt.records.recordings import open_recordings
from segquant_trt.records.scores import (
    AmplificationMethod,
    OptionScore,
    Scores,
    SiteScore,
    array_key,
    write_scores,
)
from segquant_trt.score.amplify import Gains, backward_gains
from segquant_trt.score.group import Member, grouped, make_group
from segquant_trt.score.options import Arrays, OptionSearch
from segquant_trt.score.outputs import channel_ranges, output_range, rounding_noise

_EIGHT_BITS = (
    WeightPlan(bits=8, scale_method="absmax"),
    WeightPlan(bits=8, scale_method="mse"),
    WeightPlan(bits=8, rounding="gptq", scale_method="mse"),
)
_FOUR_BITS = (
    WeightPlan(bits=4, scale_method="absmax"),
    WeightPlan(bits=4, scale_method="mse"),
    WeightPlan(bits=4, rounding="gptq", scale_method="mse"),
)
_MEMORY_SHARE = 4  # a float32 module, its gradients' path included, in a quarter of memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """`weight_bits`: widths whose options are scored. `range_method`: for activations."""

    weight_bits: tuple[int, ...] = (8,)
    range_method: RangeMethod = "mse"
    threads: int | None = None


def score(
    run: Path,
    weights_folder: Path,
    spec: ModelSpec,
    facts: GraphFacts,
    request: ScoreRequest,
    *,
    on_progress: Callable[[str, int, int], None],
    on_note: Callable[[str], None],
) -> Scores:
    """Write `scores.safetensors`. Weights and calibration are used one group at a time.

    Raises:
        SegQuantError: facts and calibration are of different models, or a site is not calibrated.
    """
    calibration = read_calibration(run / "calibration.safetensors")
    if calibration.onnx_sha256 != facts.onnx_sha256:
        raise SegQuantError(
            f"{run / 'calibration.safetensors'} and facts.yaml are of different models "
            f"({calibration.onnx_sha256[:12]} and {facts.onnx_sha256[:12]})",
            hint="run 'segquant-trt calibrate' on this model again",
        )
    gains = _gains(run, weights_folder, spec, facts, calibration, on_progress, on_note)
    weights = Weights(load_graph(run / "model.onnx"), weights_folder)
    plans = [p for p in (*_EIGHT_BITS, *_FOUR_BITS) if p.bits in request.weight_bits]
    search = OptionSearch(weights=plans, method=request.range_method)
    groups = list(grouped(facts).items())
    done = 0

    def scored(item: tuple[str, list[LinearSite]]) -> list[SiteScore]:
        tensor, sites = item
        group = make_group(tensor, sites, facts, calibration, weights, gains)
        options = search.options(group)
        return [
            _site_score(member, tensor, options[member.site.name], request, search.arrays, gains)
            for member in group.members
        ]

    found: dict[str, SiteScore] = {}
    # One thread per group: products of one site are too small to share, and a sum that is not
    # split among threads is the same on every machine.
    with threadpool_limits(1), ThreadPoolExecutor(request.threads or os.cpu_count()) as pool:
        for results in pool.map(scored, groups):
            found.update({result.site: result for result in results})
            done += 1
            on_progress("score sites", done, len(groups))
    scores = Scores(
        onnx_sha256=facts.onnx_sha256,
        facts_sha256=sha256_file(run / "facts.yaml"),
        calibration_sha256=sha256_file(run / "calibration.safetensors"),
        bin_edges=calibration.bin_edges,
        sites=tuple(found[site.name] for site in facts.sites),
    )
    write_scores(run / "scores.safetensors", scores, search.arrays)
    return scores


def _site_score(
    member: Member,
    tensor: str,
    options: tuple[OptionScore, ...],
    request: ScoreRequest,
    arrays: Arrays,
    gains: Gains,
) -> SiteScore:
    whole, channels = output_range(member, request.range_method), channel_ranges(member)
    single, own = rounding_noise(member, whole, channels)
    key = array_key("o", channels)
    arrays[key] = channels
    method: AmplificationMethod = "backward" if member.site.name in gains else "uniform"
    elements = member.output.elements_per_sample
    return SiteScore(
        site=member.site.name,
        group=tensor,
        rows_per_sample=elements // member.site.out_features,
        amplification=method,
        output_range=whole,
        output_channels=key,
        range_noise=_plain(single),
        channels_noise=_plain(own),
        options=options,
    )


def _plain(noise: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in noise)


def _gains(
    run: Path,
    weights_folder: Path,
    spec: ModelSpec,
    facts: GraphFacts,
    calibration: Calibration,
    on_progress: Callable[[str, int, int], None],
    on_note: Callable[[str], None],
) -> Gains:
    import psutil

    if 2 * spec.size_bytes_float > psutil.virtual_memory().total // _MEMORY_SHARE:
        on_note(
            "the model is too large for a backward pass here: every site's noise counts alike, "
            "and predictions of the whole are rough"
        )
        return {}
    family = family_for(spec.class_name)
    module = load_module(find_checkpoint(weights_folder), family, spec.config)
    batches = list(open_recordings(run / "excerpt.safetensors", spec).batches(1 << 16))
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        on_progress("measure amplification", done, len(batches))

    return backward_gains(
        module, family, facts.sites, batches, edges=calibration.bin_edges, on_batch=advance
    )
