"""What is told to cost nothing is what folds when a plan wants it, on both targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import TARGETS, Target
from segquant_trt.rewrite import foldable
from tests.rewrite.test_fold_divisors import (
    FOLDED,
    KEPT,
    C,
    graph,
    layer_norm,
    multiplications,
    random,
)
from tests.rewrite.test_fold_into_codes import coded, convolution
from tests.small_graphs import facts_of, linear_nodes, save_graph

node = helper.make_node


def found(model: Path, target: Target, *kept: str) -> frozenset[str]:
    return foldable(load_graph(model), model.parent, facts_of(model), target, kept)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_the_tensor_of_two_sites(tmp_path: Path, name: str, target: Target) -> None:
    model = graph(tmp_path, {**FOLDED, **KEPT}[name]())
    before = model.read_bytes()
    assert ("a" in found(model, target)) == (name in FOLDED)
    assert model.read_bytes() == before


@pytest.mark.parametrize("target", TARGETS)
def test_a_chain_of_sites_and_what_their_plans_leave(tmp_path: Path, target: Target) -> None:
    """Between two linears it folds; behind an input or a GELU it is multiplied."""
    nodes = [
        *linear_nodes("first", "x", "h", bias=True, stored=True),
        *linear_nodes("second", "h", "g", bias=True, stored=True),
        node("Gelu", ["g"], ["gelu"], name="gelu"),
        *linear_nodes("third", "gelu", "y", bias=True, stored=True),
    ]
    weights = {}
    for seed, name in enumerate(("first", "second", "third")):
        weights[f"{name}.weight"] = random(C, C, seed=seed).astype(np.float16)
        weights[f"{name}.bias"] = random(C).astype(np.float16)
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": ["n", "t", C]}, ["y"], weights)
    told = found(model, target)
    assert told == {"h"}
    for site in facts_of(model).sites:
        folded, plain = coded(tmp_path, model, target, site.name)
        assert len(multiplications(plain)) == 1
        assert (multiplications(folded) == []) == (site.activation in told)


@pytest.mark.parametrize("target", TARGETS)
def test_behind_a_requantised_convolution(tmp_path: Path, target: Target) -> None:
    first, weights = convolution("first", "x", "h", 2)
    second, more = convolution("second", "h", "y", 4)
    shape = ["n", C, "h", "w"]
    model = save_graph(
        tmp_path / "model.onnx", [*first, *second], {"x": shape}, {"y": shape}, weights | more
    )
    # Where codes may have a scale per channel they take what the input cannot.
    assert found(model, target) == ({"x", "h"} if target == "onnxruntime" else {"h"})


def test_a_site_that_stays_in_float_wants_the_tensor_as_it_is(tmp_path: Path) -> None:
    model = graph(tmp_path, layer_norm())
    assert found(model, "onnxruntime") == {"a"}
    assert found(model, "onnxruntime", "k") == frozenset()


def test_nothing_to_smooth(tmp_path: Path) -> None:
    model = graph(tmp_path, layer_norm())
    assert found(model, "onnxruntime", "q", "k") == frozenset()
