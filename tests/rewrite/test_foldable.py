"""What is told to cost nothing is what folds when a plan wants it, on both targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import (
    CPU_TARGETS,
    FreeDivisors,
    PerToken,
    SegmentPlan,
    Static,
    Symmetric,
    Target,
    Treatment,
    WeightPlan,
)
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


def found(model: Path, target: Target, *kept: str) -> FreeDivisors:
    return foldable(load_graph(model), model.parent, facts_of(model), target, kept)


@pytest.mark.parametrize("target", CPU_TARGETS)
@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_the_tensor_of_two_sites(tmp_path: Path, name: str, target: Target) -> None:
    model = graph(tmp_path, {**FOLDED, **KEPT}[name]())
    before = model.read_bytes()
    told = found(model, target)
    assert ("a" in told.producers) == (name in FOLDED)
    assert not told.codes
    assert model.read_bytes() == before


@pytest.mark.parametrize("target", CPU_TARGETS)
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
    assert found(model, target) == FreeDivisors(producers=frozenset("h"))
    for site in facts_of(model).sites:
        folded, plain = coded(tmp_path, model, target, site.name)
        assert len(multiplications(plain)) == 1
        assert (multiplications(folded) == []) == (site.activation == "h")


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_behind_a_requantised_convolution(tmp_path: Path, target: Target) -> None:
    first, weights = convolution("first", "x", "h", 2)
    second, more = convolution("second", "h", "y", 4)
    shape = ["n", C, "h", "w"]
    model = save_graph(
        tmp_path / "model.onnx", [*first, *second], {"x": shape}, {"y": shape}, weights | more
    )
    # Where codes may have a scale per channel they take what the input cannot.
    codes = frozenset("x") if target == "onnxruntime" else frozenset()
    assert found(model, target) == FreeDivisors(producers=frozenset("h"), codes=codes)


def test_a_row_factor_stands_between_a_divisor_and_the_codes(tmp_path: Path) -> None:
    """The factor is that of the divided input, so the divisor is multiplied."""
    nodes, weights = convolution("first", "x", "y", 2, kernel=1)
    shape = ["n", C, "h", "w"]
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": shape}, {"y": shape}, weights)
    told = found(model, "onnxruntime")
    assert told.codes == {"x"}
    for factor in (Static(), PerToken()):
        folded, _ = coded(tmp_path, model, "onnxruntime", "first", factor)
        whole = SegmentPlan(channels=C, activation=Symmetric(scale=1.0), factor=factor)
        free = told.under(Treatment(segments=(whole,), weight=WeightPlan()), "x")
        assert (len(multiplications(folded)) == 0) == free == (factor == Static())


def test_nodes_without_inputs_are_no_obstacle(tmp_path: Path) -> None:
    """As in graphs of other exporters, which keep their constants among the nodes."""
    nodes, weights = layer_norm()
    nodes.append(node("Constant", [], ["unread"], name="unread", value_float=1.0))
    model = graph(tmp_path, (nodes, weights))
    assert found(model, "onnxruntime") == FreeDivisors(producers=frozenset("a"))


def test_a_site_that_stays_in_float_wants_the_tensor_as_it_is(tmp_path: Path) -> None:
    model = graph(tmp_path, layer_norm())
    assert found(model, "onnxruntime") == FreeDivisors(producers=frozenset("a"))
    assert found(model, "onnxruntime", "k") == FreeDivisors()


def test_nothing_to_smooth(tmp_path: Path) -> None:
    model = graph(tmp_path, layer_norm())
    assert found(model, "onnxruntime", "q", "k") == FreeDivisors()
