"""Assemble a bundle: manifest, model, weights and plan in one folder that owns all its bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import segquant_trt
from segquant_trt.backends import backend_for
from segquant_trt.build.proof import IntegerShare, prove_integer
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.annotations import drop_annotations
from segquant_trt.graph.bigfile import Weights, load_graph
from segquant_trt.graph.frozen_stamp import fallback_path, frozen_steps
from segquant_trt.graph.hoisted_stamp import hoisted_prompt, prompt_path
from segquant_trt.graph.payload import relocate
from segquant_trt.graph.plan_stamp import check_plan_stamp
from segquant_trt.records import (
    BundleFile,
    FrozenSteps,
    GraphFacts,
    HoistedPrompt,
    Manifest,
    ModelSpec,
    QuantPlan,
)
from segquant_trt.records.bundle_layout import (
    FALLBACK,
    MANIFEST,
    MODEL,
    PLAN,
    PROMPT,
    WEIGHTS,
    data_files,
    sealed,
)
from segquant_trt.records.codec import encode_yaml, from_plain, to_plain
from segquant_trt.records.files import atomic_write_json, sha256_bytes, sha256_file
from segquant_trt.records.scratch import replace_folder, scratch_folder, sync_file


def build(run: Path, spec: ModelSpec, facts: GraphFacts, plan: QuantPlan, *, out: Path) -> Manifest:
    """Make the bundle `out` from `run/quantized.onnx` and `run/quantized.weights`.

    Where steps were frozen and may be missed, `run/quantized.fallback.onnx` comes with it; every
    planned site of it is proven to run in integers, too. `run/quantized.prompt.onnx` comes with it
    where values were hoisted out of the graph.

    The folder appears complete or not at all; equal inputs give equal bytes.

    Raises:
        SegQuantError: a planned site would run in float (all are named), the records are of
            different graphs, the target's runtime is missing, or the folder cannot be written.
    """
    _check_same_graph(spec, facts, plan)
    quantized = run / "quantized.onnx"
    graph = load_graph(quantized)
    frozen, hoisted = frozen_steps(graph), hoisted_prompt(graph)
    sources = {MODEL: quantized}
    if hoisted is not None:
        sources[PROMPT] = prompt_path(quantized)
    if frozen is not None and frozen.fallback:
        sources[FALLBACK] = fallback_path(quantized)
    for path in sources.values():
        graph = load_graph(path)
        check_plan_stamp(graph, plan, path)
        Weights(graph, run).check_complete()
    backend = backend_for(plan.target)
    gone = [site for part in (frozen, hoisted) if part is not None for site in part.sites]
    share = prove_integer(backend, quantized, spec, plan, absent=gone)
    if FALLBACK in sources:
        prove_integer(backend, sources[FALLBACK], spec, plan)
    with scratch_folder(out) as scratch:
        folder = scratch / out.name
        folder.mkdir()
        for name, path in sources.items():
            model = load_graph(path)
            relocate(model, WEIGHTS)
            drop_annotations(model)
            (folder / name).write_bytes(model.SerializeToString(deterministic=True))
        shutil.copyfile(quantized.with_suffix(".weights"), folder / WEIGHTS)
        (folder / PLAN).write_bytes(encode_yaml(plan))
        plain = sealed(to_plain(_manifest(folder, spec, plan, share, frozen, hoisted)))
        atomic_write_json(folder / MANIFEST, plain)
        for name in data_files(frozen, hoisted):
            sync_file(folder / name)
        replace_folder(folder, out, scratch=scratch)
    return from_plain(plain, Manifest, origin=MANIFEST)


def _check_same_graph(spec: ModelSpec, facts: GraphFacts, plan: QuantPlan) -> None:
    for owner, digest in (("facts.yaml", facts.onnx_sha256), ("plan.yaml", plan.onnx_sha256)):
        if digest != spec.onnx_sha256:
            raise SegQuantError(
                f"{owner} and model.yaml are of different graphs "
                f"({digest[:12]} and {spec.onnx_sha256[:12]})",
                hint="run 'segquant-trt analyze', 'calibrate' and 'plan' again for this model",
            )


def _manifest(
    folder: Path,
    spec: ModelSpec,
    plan: QuantPlan,
    share: IntegerShare,
    frozen: FrozenSteps | None,
    hoisted: HoistedPrompt | None,
) -> Manifest:
    files = tuple(
        BundleFile(
            name=name, sha256=sha256_file(folder / name), size_bytes=(folder / name).stat().st_size
        )
        for name in data_files(frozen, hoisted)
    )
    return Manifest(
        target=plan.target,
        source=spec.source,
        family=spec.family,
        class_name=spec.class_name,
        config=spec.config,
        inputs=spec.inputs,
        output=spec.output,
        axes=spec.axes,
        timestep=spec.timestep,
        files=files,
        versions={
            "segquant-trt": segquant_trt.__version__,
            **backend_for(plan.target).versions(),
        },
        provenance={
            "model": spec.onnx_sha256,
            "facts": plan.facts_sha256,
            "calibration": plan.calibration_sha256,
            "plan": sha256_bytes(encode_yaml(plan)),
        },
        size_bytes_float=spec.size_bytes_float,
        size_bytes_quantized=sum(file.size_bytes for file in files if file.name != PLAN),
        sites_total=share.sites_total,
        sites_integer=share.sites_integer,
        macs_integer_share=share.macs_integer_share,
        frozen=frozen,
        hoisted=hoisted,
    )
