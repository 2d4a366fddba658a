"""The whole stage: gains by backward passes, then every group's options, one group at a time."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.weight_layout import as_rows
from segquant_trt.graph.wiring import Wiring
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
    write_scores,
)
from segquant_trt.schemes import quantize_weight, symmetric
from segquant_trt.schemes.seen import over_all_steps
from segquant_trt.score.amplify import Gains, backward_gains, unreached
from segquant_trt.score.coherence import Switch, corrected_gains
from segquant_trt.score.group import MEASURED_BITS, Double, Member, Rounding, grouped, make_group
from segquant_trt.score.joint import joint_factors
from segquant_trt.score.options import OptionSearch
from segquant_trt.score.outputs import output_ranges

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
_SMALL_BYTES = 1 << 26
_MOST_MACS = 5e12  # a minute or two on two cores
_MEMORY_SHARE = 4  # a float32 module, its gradients' path included, in a quarter of memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """`weight_bits`: widths whose options are scored. `range_method`: for activations.

    `weight_block`: input channels with one weight scale; None: all of them. `weight_only`: only
    options with float activations are scored.
    """

    weight_bits: tuple[int, ...] = (8,)
    weight_block: int | None = None
    weight_only: bool = False
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
    graph = load_graph(run / "model.onnx")
    weights = Weights(graph, weights_folder)
    source = _Source(run=run, folder=weights_folder, spec=spec, facts=facts)
    plans = [
        replace(plan, block=request.weight_block)
        for plan in (*_EIGHT_BITS, *_FOUR_BITS)
        if plan.bits in request.weight_bits
    ]
    coarse = [plan for plan in plans if plan.bits < MEASURED_BITS]
    gains, white, joint = _gains(source, calibration, weights, coarse, on_progress, on_note)
    silent = unreached(Wiring(graph.graph), facts.sites)
    for site in facts.sites:
        if site.name in silent:
            none = np.zeros((max(len(calibration.bin_edges), 1), site.out_features))
            gains, white = {**gains, site.name: none}, {**white, site.name: none}
    search = OptionSearch(
        weights=plans, method=request.range_method, weight_only=request.weight_only
    )
    groups = list(grouped(facts).items())
    done = 0

    def scored(item: tuple[str, list[LinearSite]]) -> list[SiteScore]:
        tensor, sites = item
        left = [_left_out(site, calibration) for site in sites if site.has_coded_weight]
        sites = [site for site in sites if not site.has_coded_weight]
        if not sites:
            return left
        group = make_group(tensor, sites, facts, calibration, weights, gains, white, joint)
        options = search.options(group)
        return left + [
            _site_score(member, calibration, options[member.site.name], search, _method(member))
            for member in group.members
        ]

    def _method(member: Member) -> AmplificationMethod:
        if member.site.name in silent:
            return "unreached"
        return "backward" if member.gains is gains.get(member.site.name) else "uniform"

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
    calibration: Calibration,
    options: tuple[OptionScore, ...],
    search: OptionSearch,
    method: AmplificationMethod,
) -> SiteScore:
    site = member.site
    output = search.output_score(member, output_ranges(member, search.method))
    read = calibration.tensors[site.activation].elements_per_sample
    return SiteScore(
        site=site.name,
        group=site.activation,
        rows_per_sample=member.output.elements_per_sample // site.out_features,
        inputs_per_sample=read // site.in_features,
        amplification=method,
        output_range=output.range,
        output_channels=output.channels,
        range_noise=output.range_noise,
        channels_noise=output.channels_noise,
        options=options,
    )


def _left_out(site: LinearSite, calibration: Calibration) -> SiteScore:
    """The score of a site that is quantised already."""
    elements = calibration.tensors[site.output].elements_per_sample
    none = (0.0,) * max(len(calibration.bin_edges), 1)
    return SiteScore(
        site=site.name,
        group=site.activation,
        rows_per_sample=elements // site.out_features,
        amplification="uniform",
        output_range=(0.0, 0.0),
        output_channels="",
        range_noise=none,
        channels_noise=none,
        options=(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """The model that is scored, and where its files are."""

    run: Path
    folder: Path
    spec: ModelSpec
    facts: GraphFacts


def _gains(
    source: _Source,
    calibration: Calibration,
    weights: Weights,
    coarse: Sequence[WeightPlan],
    on_progress: Callable[[str, int, int], None],
    on_note: Callable[[str], None],
) -> tuple[Gains, Gains, dict[Rounding, Double]]:
    """What coding inputs and weights costs, what white noise does, and all coarse weights."""
    import psutil

    if 2 * source.spec.size_bytes_float > psutil.virtual_memory().total // _MEMORY_SHARE:
        on_note(
            "the model is too large for a backward pass here: every site's noise counts alike, "
            "and predictions of the whole are rough"
        )
        return {}, {}, {}
    family = family_for(source.spec.class_name)
    module = load_module(find_checkpoint(source.folder), family, source.spec.config)
    batches = _excerpt(source)
    edges, sites = calibration.bin_edges, source.facts.sites
    gains = backward_gains(
        module,
        family,
        sites,
        batches,
        edges=edges,
        on_batch=_counter("measure amplification", len(batches), on_progress),
    )
    groups = list(_body(source.facts, gains).items())
    joint = (
        joint_factors(
            module,
            family,
            (make_group(*g, source.facts, calibration, weights, gains, gains) for g in groups),
            coarse,
            batches,
            edges=edges,
            on_group=_counter("switch coarse weights", len(groups), on_progress),
        )
        if coarse
        else {}
    )
    macs = sum(_macs(site, calibration) for site in sites) * _sample_count(batches)
    if macs * len(sites) > _MOST_MACS:
        on_note("single sites are not switched one by one: that would take too long here")
        return gains, gains, joint
    corrected = corrected_gains(
        module,
        family,
        switches(source.facts, calibration, weights),
        batches,
        gains,
        edges=edges,
        on_site=_counter("switch single sites", len(sites), on_progress),
    )
    return corrected, gains, joint


def _body(facts: GraphFacts, gains: Gains) -> dict[str, list[LinearSite]]:
    """Sites that are coded as a rule, and whose modules are known."""
    found = {
        tensor: [
            s for s in sites if s.role == "body" and not s.has_coded_weight and s.name in gains
        ]
        for tensor, sites in grouped(facts).items()
    }
    return {tensor: sites for tensor, sites in found.items() if sites}


def _excerpt(source: _Source) -> list[dict[str, npt.NDArray[np.generic]]]:
    """All samples in one call where the model is small, else one timestep in each."""
    path = source.run / "excerpt.safetensors"
    excerpt = open_recordings(path, source.spec)
    batches = list(excerpt.batches(1 << 16))
    if source.spec.size_bytes_float > _SMALL_BYTES:
        return batches
    return [
        {
            name: np.concatenate([b[name] for b in batches]) if batched else batches[0][name]
            for name, batched in excerpt.batched.items()
        }
    ]


def _sample_count(batches: list[dict[str, npt.NDArray[np.generic]]]) -> int:
    return sum(max(len(array) for array in batch.values()) for batch in batches)


def _macs(site: LinearSite, calibration: Calibration) -> int:
    elements = calibration.tensors[site.output].elements_per_sample
    return elements * site.in_features // site.groups * math.prod(site.kernel)


def switches(facts: GraphFacts, calibration: Calibration, weights: Weights) -> Iterator[Switch]:
    """Every site in plain INT8: symmetric codes over its whole range, weights to nearest."""
    for site in facts.sites:
        if site.has_coded_weight:
            continue
        stats = calibration.tensors[site.activation]
        scheme = symmetric.fit(over_all_steps(stats), "mse")
        rows = as_rows(weights.read_float32(site.weight), site.weight_layout)
        decoded = quantize_weight(rows, WeightPlan()).dequantize()
        yield Switch(site=site, codes=symmetric.encoding(scheme), weight=decoded)


def _counter(
    label: str, total: int, on_progress: Callable[[str, int, int], None]
) -> Callable[[], None]:
    done = itertools.count(1)
    return lambda: on_progress(label, next(done), total)
