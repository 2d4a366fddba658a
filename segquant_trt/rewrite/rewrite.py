"""Apply a plan to the float graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx

from segquant_trt.backends import backend_for
from segquant_trt.backends.emission import array_keys
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.payload import PayloadWriter
from segquant_trt.graph.plan_stamp import stamp_plan
from segquant_trt.graph.remove_unused import RemoveUnused
from segquant_trt.records import GraphFacts, QuantPlan
from segquant_trt.records.files import sha256_file
from segquant_trt.records.scratch import scratch_folder, sync_file
from segquant_trt.rewrite.data import write_data
from segquant_trt.rewrite.fold_divisors import FoldDivisors
from segquant_trt.rewrite.quantize_sites import QuantizeSites

_NO_ARRAYS: Mapping[str, npt.NDArray[np.generic]] = MappingProxyType({})


def rewrite(
    model_onnx: Path,
    checkpoint: Path,
    facts: GraphFacts,
    plan: QuantPlan,
    out: Path,
    *,
    arrays: Mapping[str, npt.NDArray[np.generic]] = _NO_ARRAYS,
    timestep: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the quantised graph to `out` and its data beside it, with the suffix `.weights`.

    Equal inputs give equal bytes. Weights are read, quantised and written one at a time.

    Args:
        model_onnx: the float graph.
        checkpoint: the folder that holds the graph's external data.
        facts: what `analyze` found in that graph.
        plan: what to do with every site.
        out: path of the quantised graph.
        arrays: what the plan names by key: divisors, optimised weights, output ranges.
        timestep: the graph input that factors per step follow; the facts' by default.
        on_progress: told tensors written and tensors in all.

    Raises:
        SegQuantError: the plan or the facts are of another graph, name an unknown site or an
            impossible scheme, ask for what the target lacks, or for an array that is not there; a
            weight is not finite; a file cannot be read or written.
    """
    digest = sha256_file(model_onnx)
    for owner, wanted in (("plan", plan.onnx_sha256), ("facts", facts.onnx_sha256)):
        if wanted != digest:
            raise SegQuantError(
                f"the {owner} was made for a graph with sha256 {wanted[:12]}..., "
                f"{model_onnx} has {digest[:12]}...",
                hint="run 'segquant-trt analyze', 'calibrate' and 'plan' again for this graph",
            )
    _check_sites(facts, plan)
    _check_arrays(plan, arrays)
    model = load_graph(model_onnx)
    stamp_plan(model, plan)
    source = Weights(load_graph(model_onnx), checkpoint)
    placement = backend_for(plan.target).placement
    sites = QuantizeSites(facts, plan, placement, arrays, timestep or facts.timestep, checkpoint)
    sites.run(model)
    RemoveUnused().run(model)
    folding = FoldDivisors(sites.smoothed, sites.data, checkpoint)
    folding.run(model)
    RemoveUnused().run(model)
    with scratch_folder(out) as scratch:
        graph, payload = scratch / out.name, scratch / out.with_suffix(".weights").name
        with payload.open("wb") as stream:
            writer = PayloadWriter(stream, payload.name)
            write_data(model, source, folding.data, arrays, writer, on_progress)
        graph.write_bytes(model.SerializeToString(deterministic=True))
        _check(graph)
        for path in (payload, graph):
            sync_file(path)
            path.replace(out.with_name(path.name))


def _check_sites(facts: GraphFacts, plan: QuantPlan) -> None:
    """Every site is decided exactly once; unknown ones are refused later, by name."""
    decided = Counter(site.site for site in plan.sites)
    twice = [name for name, count in decided.items() if count > 1]
    missing = [site.name for site in facts.sites if site.name not in decided]
    unknown = decided.keys() - {site.name for site in facts.sites}
    if twice or (missing and not unknown):
        what = f"decides site '{twice[0]}' twice" if twice else f"lacks site '{missing[0]}'"
        raise SegQuantError(
            f"the plan {what}; every one of the {len(facts.sites)} sites needs one entry",
            hint="undo the edit of plan.yaml (keep_float leaves a site alone), or plan again",
        )


def _check_arrays(plan: QuantPlan, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    for site in plan.sites:
        missing = [key for key in array_keys(site) if key not in arrays]
        if missing:
            raise SegQuantError(
                f"the plan names the array '{missing[0]}' at site '{site.site}', "
                "which scores.safetensors does not hold",
                hint="undo the edit of the plan, or run 'segquant-trt score' and 'plan' again",
            )


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise SegQuantError(
            f"the quantised graph is not valid ONNX: {str(error).splitlines()[0]}",
            hint="this is a defect of the rewrite stage; please report it with the plan",
        ) from error
