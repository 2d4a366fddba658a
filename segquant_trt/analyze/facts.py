"""Assemble `facts.yaml` from one ONNX file; neither weights nor calibration are needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from segquant_trt.analyze.analyses import ANALYSES
from segquant_trt.analyze.inputs import prompt_inputs, timestep_input
from segquant_trt.analyze.roles import site_roles
from segquant_trt.analyze.subject import Findings, Subject
from segquant_trt.analyze.trail import Trails
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.sites import find_sites
from segquant_trt.graph.taint import opaque_operators
from segquant_trt.graph.view import GraphView
from segquant_trt.graph.wiring import Wiring, node_name, read_tensors, with_inner_nodes
from segquant_trt.records import GraphFacts
from segquant_trt.records import Rejection as NearMiss
from segquant_trt.records.files import sha256_file

_PRODUCTS = ("MatMul", "Gemm", "Conv")


def analyze(
    model_onnx: Path,
    *,
    timestep: str | None = None,
    prompts: Sequence[str] | None = None,
) -> GraphFacts:
    """Read the sites of a denoiser graph, what surrounds them, and what they depend on.

    Args:
        model_onnx: any ONNX file; external data need not exist.
        timestep: name of the timestep input; guessed, and noted, when None.
        prompts: names of the inputs that a prompt fixes; guessed, and noted, when None.

    Raises:
        SegQuantError: unreadable file, no site, nodes out of order or without what they read, or a
            name that is no input.
    """
    model = _inlined(load_graph(model_onnx))
    _check_wires(model.graph, model_onnx)
    view = GraphView.of(model, model_onnx.parent)
    time, time_note = timestep_input(view, timestep, model_onnx)
    fixed, prompt_note = prompt_inputs(view, prompts, time, model_onnx)
    ranks = _ranks(view)
    found, misses = find_sites(view.wiring, ranks, view.constants)
    if not found:
        raise _nothing_found(model_onnx, misses)
    roles = site_roles(view.wiring, found, view.dependence, ranks)
    sites = tuple(replace(site, role=roles[site.name]) for site in found)
    subject = Subject(
        view=view, sites=sites, trails=Trails(view), timestep=time, prompt_inputs=fixed
    )
    findings = Findings.merged(analysis(subject) for analysis in ANALYSES)
    return GraphFacts(
        onnx_sha256=sha256_file(model_onnx),
        sites=sites,
        segments=findings.segments,
        polarity=findings.polarity,
        timestep_only=findings.timestep_only,
        prompt_constant=findings.prompt_constant,
        prompt_and_timestep=findings.prompt_and_timestep,
        rejections=(*misses, *findings.rejections),
        timestep=time,
        prompt_inputs=fixed,
        notes=tuple(filter(None, (time_note, prompt_note, *_remarks(model, view.wiring)))),
    )


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the bodies of its local functions in place of their calls."""
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    try:
        return inline_local_functions(model)
    except (RuntimeError, ValueError, onnx.checker.ValidationError):
        return model  # their calls stay opaque nodes


def _ranks(view: GraphView) -> dict[str, int]:
    wiring = view.wiring
    names = (*wiring.graph_inputs, *wiring.constants, *wiring.producer)
    ranks = ((name, view.shapes.rank(name)) for name in names)
    return {name: rank for name, rank in ranks if rank is not None}


def _remarks(model: onnx.ModelProto, wiring: Wiring) -> Iterator[str]:
    for name, count in sorted(opaque_operators(model, wiring).items()):
        yield (
            f"operator {name} ({count} {'node' if count == 1 else 'nodes'}) is unknown: "
            "taken as opaque, its outputs depend on all of its inputs"
        )
    names = Counter(node.name for node in wiring.nodes if node.name)
    for name, count in names.items():
        if count > 1:
            yield f"{count} nodes are called '{name}'"
    inner = sum(_inner_products(node) for node in wiring.nodes)
    if inner:
        yield f"{inner} MatMul, Gemm or Conv inside control flow: left in float"


def _inner_products(node: onnx.NodeProto) -> int:
    inner = list(with_inner_nodes(node))[1:]
    return sum(other.op_type in _PRODUCTS for other in inner)


def _check_wires(graph: onnx.GraphProto, path: Path) -> None:
    """Every tensor is computed once, and before it is read; every product has its operands."""
    outputs = Counter(name for node in graph.node for name in node.output if name)
    given = {value.name for value in graph.input} | {value.name for value in graph.initializer}
    seen = given | {sparse.values.name for sparse in graph.sparse_initializer}
    known = seen | outputs.keys()
    for node in graph.node:
        early = [name for name in read_tensors(node) if name in outputs and name not in seen]
        missing = [name for name in node.input if name and name not in known]
        twice = [name for name in node.output if outputs[name] > 1 or (name and name in given)]
        if early and not set(early) <= _inner_names(node):
            raise _unusable(node, path, f"reads '{early[0]}' before it is computed")
        if missing:
            raise _unusable(node, path, f"reads '{missing[0]}', which nothing provides")
        if node.op_type in _PRODUCTS and not all((*node.input, "", "")[:2]):
            raise _unusable(node, path, f"is a {node.op_type} that lacks an operand")
        if twice:
            raise _unusable(node, path, f"computes '{twice[0]}', and it is not alone in that")
        seen.update(node.output)


def _unusable(node: onnx.NodeProto, path: Path, what: str) -> SegQuantError:
    return SegQuantError(
        f"{path}: node '{node_name(node)}' {what}",
        hint="sort the graph topologically and check it (onnx.checker), or export the model again",
    )


def _inner_names(node: onnx.NodeProto) -> set[str]:
    return {name for inner in list(with_inner_nodes(node))[1:] for name in inner.output}


def _nothing_found(path: Path, misses: Sequence[NearMiss]) -> SegQuantError:
    near = f" ({misses[0].site}: {misses[0].reason})" if misses else ""
    return SegQuantError(
        f"{path} has no MatMul, Gemm or Conv with a constant weight{near}",
        hint="check that this is the denoiser's graph; there is nothing to quantise in it",
    )
