"""What a compilation asks of its plan: the options, and what the graph does for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segquant_trt.records.files import sha256_file
from segquant_trt.records.options import CompileOptions
from segquant_trt.records.stage import Work

if TYPE_CHECKING:
    from segquant_trt.plan import PlanRequest
    from segquant_trt.records import GraphFacts


def plan_request_of(work: Work, facts: GraphFacts, options: CompileOptions) -> PlanRequest:
    """The request of `options`, for the graph of `facts`.

    In a folder that holds records alone every divisor has its price, and samples are taken to be
    the first axis everywhere.

    Raises:
        SegQuantError: the rules' file is missing or damaged, or a pattern matches no site.
    """
    from segquant_trt.graph.bigfile import load_graph
    from segquant_trt.plan import plan_request
    from segquant_trt.rewrite import foldable, removable, samples_elsewhere

    request = plan_request(options)
    graph = work.run / "model.onnx"
    if not graph.exists() or sha256_file(graph) != facts.onnx_sha256:
        return request
    folder = Path(work.location().folder)
    kept = request.kept(facts)
    model = load_graph(graph)
    removed = None
    if request.frozen or request.hoisted:
        removed = removable(model, folder, facts, freezing=request.frozen, hoisting=request.hoisted)
    return replace(
        request,
        removed=removed,
        folded=foldable(model, folder, facts, request.target, kept),
        samples_elsewhere=samples_elsewhere(model, folder, facts),
    )
