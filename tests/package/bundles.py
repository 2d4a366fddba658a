"""Small bundles of every kind that is served differently, and calls of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from onnx import helper

from segquant_trt.build import build
from segquant_trt.records import AxisRange, KeepFloat, ModelSpec, TensorSpec
from segquant_trt.rewrite import rewrite
from tests.bundles import WIDTH, make_bundle, spec_of
from tests.rewrite.hoisting import feeds_at as prompt_feeds
from tests.rewrite.test_freeze_steps import feeds_at
from tests.serve.test_frozen import bundle_of as frozen_bundle
from tests.serve.test_hoisted import bundle_of as hoisted_bundle
from tests.small_graphs import (
    Array,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
    scheme_of,
)
from tests.treatments import case

Call = dict[str, Array]


def plain(folder: Path) -> Path:
    return make_bundle(folder)[0]


def four_bits(folder: Path) -> Path:
    """`y = fc(x)`, in four bits times codes."""
    return _of_one_site(folder, shared=False, bits=4)


def shared(folder: Path) -> Path:
    """`y = fc(x) + ids`, where samples share `ids`."""
    return _of_one_site(folder, shared=True, bits=8)


def unbatched(folder: Path) -> Path:
    """The same, for one sample: no axis of it anywhere."""
    return _of_one_site(folder, shared=True, bits=8, batch=False)


def frozen(folder: Path) -> Path:
    return frozen_bundle(folder, fallback=True)[0]


def refusing(folder: Path) -> Path:
    return frozen_bundle(folder, fallback=False)[0]


def hoisted(folder: Path) -> Path:
    return hoisted_bundle(folder)[0]


def hoisted_alone(folder: Path) -> Path:
    return hoisted_bundle(folder, freeze=False)[0]


BUNDLES: Mapping[str, Callable[[Path], Path]] = {
    "plain": plain,
    "four_bits": four_bits,
    "shared": shared,
    "unbatched": unbatched,
    "frozen": frozen,
    "refusing": refusing,
    "hoisted": hoisted,
    "hoisted_alone": hoisted_alone,
}


def calls_of(kind: str, count: int = 12) -> list[Call]:
    """Calls of several sizes and, where there are any, several steps and prompts."""
    random = np.random.default_rng(5)
    found: list[Call] = []
    for index in range(count):
        samples, tokens = 1 + index % 3, (4, 8, 6)[index // 2 % 3]
        if kind in ("hoisted", "hoisted_alone"):
            steps = np.array([1.0, 7.5, 501.0])[: samples % 3 + 1]
            found.append(prompt_feeds(steps, seed=index, prompt=index % 2, words=5 + index % 2))
        elif kind in ("frozen", "refusing"):
            off = 700.0 if kind == "frozen" and index % 4 == 3 else 981.0
            found.append(feeds_at(np.array([off, 7.5, 501.0])[:samples], seed=index))
        else:
            lead = () if kind == "unbatched" else (samples,)
            call: Call = {"x": _noise(random, (*lead, tokens, WIDTH))}
            if kind == "plain":
                call["e"] = _noise(random, (samples, WIDTH))
            elif kind in ("shared", "unbatched"):
                call["ids"] = _noise(np.random.default_rng(index // 2 % 4), (tokens, WIDTH))
            found.append(call)
    return found


def _noise(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.standard_normal(shape).astype(np.float32)


def _of_one_site(folder: Path, *, shared: bool, bits: int, batch: bool = True) -> Path:
    lead = ["batch"] if batch else []
    nodes = linear_nodes("fc", "x", "h" if shared else "y", bias=True, stored=True)
    inputs: dict[str, list[str | int]] = {"x": [*lead, "tokens", WIDTH]}
    if shared:
        nodes.append(helper.make_node("Add", ["h", "ids"], ["y"], name="sum"))
        inputs["ids"] = ["tokens", WIDTH]
    weight = full_range_weight((WIDTH, WIDTH), 1).astype(np.float16)
    weights = {"fc.weight": weight, "fc.bias": weight[0]}
    model = save_graph(folder / "model.onnx", nodes, inputs, ["y"], weights)
    facts = facts_of(model)
    plan = plan_of(facts, "onnxruntime", lambda _: scheme_of("symmetric"))
    if bits == 4:
        treatment = case(("symmetric", "static"), channels=WIDTH, bits=4).treatment
        plan = plan_of(facts, "onnxruntime", lambda _: KeepFloat())
        site = dataclasses.replace(plan.sites[0], treatment=treatment)
        plan = dataclasses.replace(plan, sites=(site,))
    rewrite(model, folder, facts, plan, folder / "quantized.onnx")
    tensors = tuple(
        TensorSpec(name=name, dtype="float32", shape=tuple(shape)) for name, shape in inputs.items()
    )
    axes = (
        AxisRange(name="batch", minimum=1, typical=2, maximum=8),
        AxisRange(name="tokens", minimum=2, typical=8, maximum=16, multiple=2),
    )
    spec: ModelSpec = dataclasses.replace(
        spec_of(facts),
        inputs=tensors,
        output=TensorSpec(name="y", dtype="float32", shape=tensors[0].shape),
        axes=axes if batch else axes[1:],
    )
    build(folder, spec, facts, plan, out=folder / "bundle")
    return folder / "bundle"
