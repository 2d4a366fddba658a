"""The float graph as other people's tools want it: one file, weights folded, shapes inferred.

Zoo checkpoints are float16 and the graph casts and transposes every weight where it is used. Given
that graph as it is, ModelOpt codes weights like activations, with one scale per tensor (25.6 dB
where it reaches 40.2 on the folded one). So everybody gets the graph that ONNX Runtime's
documentation asks for: `quant_pre_process`, which runs its basic optimisations. Its symbolic shape
inference fails on these graphs (a Split whose sizes are computed) and is skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import onnx

from benchmarks.ablation.subject import Subject
from segquant_trt.export.materialize import materialize

Scope = Literal["default", "excluded", "linears"]
"""What a tool may quantise: what it likes; all but NVIDIA's exclusion list (embedders, modulation,
the final projection); or of those only linears and convolutions, the sites of our own plans."""

SITE_OPERATORS = ("MatMul", "Gemm", "Conv")


def folded_model(subject: Subject, folder: Path) -> Path:
    """Write `folder/float.onnx`, or find it there, and return its path."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    done = folder / "float.onnx"
    if done.exists():
        return done
    whole = folder / "whole.onnx"
    onnx.save(onnx.load(materialize(subject.run, folder / "materialized")), whole)
    started = done.with_suffix(".started.onnx")
    quant_pre_process(str(whole), str(started), skip_symbolic_shape=True)
    _check_sites(onnx.load(started), subject)
    started.rename(done)
    return done


def kept_in_float(model: Path, subject: Subject, scope: Scope) -> list[str]:
    """Names of the nodes that a tool is told to leave alone."""
    if scope == "default":
        return []
    if scope == "excluded":
        return list(subject.kept)
    sites = {site.name for site in subject.facts.sites}
    attention = [
        node.name
        for node in onnx.load(model, load_external_data=False).graph.node
        if node.op_type in SITE_OPERATORS and node.name not in sites
    ]
    return [*subject.kept, *attention]


def _check_sites(model: onnx.ModelProto, subject: Subject) -> None:
    """Every site is still a node of its own, with a constant weight."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {
        node.name
        for node in model.graph.node
        if node.op_type in SITE_OPERATORS and node.input[1] in constants
    }
    lost = [site.name for site in subject.facts.sites if site.name not in found]
    if lost:
        raise RuntimeError(f"pre-processing lost {len(lost)} sites, the first being {lost[0]}")
