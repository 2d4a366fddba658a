"""Assemble `facts.yaml` from one ONNX file; neither weights nor calibration are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segquant_trt.analyze.roles import site_roles
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.graph.sites import find_sites, tensor_ranks
from segquant_trt.graph.taint import input_dependence
from segquant_trt.graph.wiring import Wiring
from segquant_trt.records import GraphFacts, TimestepOnlySite
from segquant_trt.records.files import sha256_file


def analyze(model_onnx: Path, *, timestep: str | None = None) -> GraphFacts:
    """Read the sites of a denoiser graph, their roles, and what hangs on the timestep alone.

    Args:
        model_onnx: any ONNX file; external data is not opened.
        timestep: name of the timestep input; guessed from the input names when None.

    Raises:
        SegQuantError: unreadable file, no site, or `timestep` is not an input.
    """
    model = load_graph(model_onnx)
    wiring = Wiring(model.graph)
    timestep = _timestep_input(wiring, timestep, model_onnx)
    ranks = tensor_ranks(model)
    dependence = input_dependence(wiring)
    sites, misses = find_sites(wiring, ranks)
    if not sites:
        raise SegQuantError(
            f"{model_onnx} has no MatMul, Gemm or Conv with a constant weight",
            hint="check that this is the denoiser's graph; there is nothing to quantise in it",
        )
    roles = site_roles(wiring, sites, dependence, ranks)
    only = frozenset((timestep,)) if timestep else frozenset()
    return GraphFacts(
        onnx_sha256=sha256_file(model_onnx),
        sites=tuple(replace(site, role=roles[site.name]) for site in sites),
        timestep_only=tuple(
            TimestepOnlySite(site=site.name, values=())
            for site in sites
            if only and dependence[site.activation] == only
        ),
        rejections=tuple(misses),
    )


def _timestep_input(wiring: Wiring, name: str | None, path: Path) -> str | None:
    inputs = tuple(wiring.graph_inputs)
    if name is None:
        return next((known for known in ("timestep", "t", "timesteps") if known in inputs), None)
    if name not in inputs:
        raise SegQuantError(
            f"{path} has no input '{name}'; its inputs are {', '.join(inputs)}",
            hint="name one of them as `timestep`",
        )
    return name
