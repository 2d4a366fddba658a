"""Divisors fold into codes: steps of requantised outputs, of linears, and of coded inputs.

Divisors are powers of two, so that codes are the same to the bit wherever they are applied.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper

from segquant_trt.backends import backend_for
from segquant_trt.backends.onnxruntime import literal_session
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import CPU_TARGETS, RowFactor, SegmentPlan, Smoothing, Static, Symmetric
from segquant_trt.rewrite import rewrite
from segquant_trt.rewrite.fold_divisors import FoldDivisors
from tests.rewrite.test_fold_divisors import (
    Array,
    C,
    Producer,
    activation,
    graph,
    multiplications,
    random,
)
from tests.small_graphs import facts_of, full_range_weight, linear_nodes, plan_of, save_graph

node = helper.make_node
STATIC = Static()


def exact_divisors() -> Array:
    """Powers of two: codes are the same to the bit wherever they are applied."""
    return np.exp2(np.random.default_rng(7).integers(-3, 4, C)).astype(np.float32)


def ranges_of_outputs() -> Array:
    return np.stack([-np.linspace(3, 9, C), np.linspace(9, 4, C)]).astype(np.float32)


def coded(
    folder: Path,
    model: Path,
    target: str,
    smooth: str,
    factor: RowFactor = STATIC,
    *,
    by_channel: bool = False,
) -> tuple[Path, Path]:
    """Every site coded, the one called `smooth` behind a divisor; with and without folding.

    `by_channel`: the outputs of the site `first` have a range per channel.
    """
    facts = facts_of(model)
    scheme = Symmetric(scale=0.0625)
    plan = plan_of(facts, target, lambda _: scheme, output_ranges={"first": (-9.0, 9.0)})
    smoothing = Smoothing(divisor="d-1", alpha=0.5, segment_exponent=None)
    whole = (SegmentPlan(channels=C, activation=scheme, factor=factor),)
    sites = tuple(
        replace(site, treatment=replace(site.treatment, smoothing=smoothing, segments=whole))
        if site.site == smooth
        else replace(site, output_channels="o-1" if by_channel else None)
        for site in plan.sites
    )
    paths = []
    for name in ("folded", "plain"):
        with pytest.MonkeyPatch.context() as patch:
            if name == "plain":
                patch.setattr(FoldDivisors, "apply", lambda self, model: None)
            path = folder / f"{name}.onnx"
            arrays = {"d-1": exact_divisors(), "o-1": ranges_of_outputs()}
            rewrite(model, folder, facts, replace(plan, sites=sites), path, arrays=arrays)
            paths.append(path)
    return paths[0], paths[1]


def convolution(name: str, source: str, result: str, seed: int, kernel: int = 3) -> Producer:
    pads = [kernel // 2] * 4
    made = node("Conv", [source, f"{name}.w", f"{name}.b"], [result], name=name, pads=pads)
    weight = full_range_weight((C, C, kernel, kernel), seed)
    return [made], {f"{name}.w": weight, f"{name}.b": random(C)}


@pytest.mark.parametrize("target", CPU_TARGETS)
@pytest.mark.parametrize("before", ["group norm", "convolution"])
def test_before_a_convolution(tmp_path: Path, before: str, target: str) -> None:
    """Also into what a requantised output is multiplied with, where it has a step per channel."""
    nodes, weights = convolution("first", "x", "h", 2)
    if before == "group norm":
        nodes = [node("GroupNormalization", ["x", "s", "t"], ["h"], name="norm", num_groups=4)]
        weights = {"s": random(C), "t": random(C, seed=3)}
    following, more = convolution("second", "h", "y", 4)
    shape = ["n", C, "h", "w"]
    model = save_graph(
        tmp_path / "model.onnx", [*nodes, *following], {"x": shape}, {"y": shape}, weights | more
    )
    by_channel = before == "convolution"
    folded, plain = coded(tmp_path, model, target, "second", by_channel=by_channel)
    assert len(multiplications(plain)) == 1
    assert multiplications(folded) == []
    feeds = {"x": random(2, C, 6, 5, seed=9)}
    one, two = (literal_session(path, threads=1).run(feeds)["y"] for path in (folded, plain))
    assert np.abs(one - two).max() <= 2e-6 * np.abs(two).max()
    proofs = backend_for(target).integer_sites(
        folded, [s.name for s in facts_of(model).sites], example=feeds
    )
    assert all(proof.integer for proof in proofs.values())


@pytest.mark.parametrize("target", CPU_TARGETS)
@pytest.mark.parametrize("rank", [2, 3])
def test_behind_a_coded_linear(tmp_path: Path, rank: int, target: str) -> None:
    """Its scales and its bias take the divisor; the bias may be lifted."""
    nodes = [
        *linear_nodes("first", "x", "h", bias=True, stored=True, gemm=rank == 2),
        *linear_nodes("second", "h", "y", bias=True, stored=True, gemm=rank == 2),
    ]
    weights = {
        name: array.astype(np.float16)
        for site in ("first", "second")
        for name, array in (
            (f"{site}.weight", full_range_weight((C, C), 3)),
            (f"{site}.bias", random(C)),
        )
    }
    shape = ["n", "t", C][-rank:]
    model = save_graph(tmp_path / "model.onnx", nodes, {"x": shape}, ["y"], weights)
    folded, plain = coded(tmp_path, model, target, "second")
    assert (len(multiplications(plain)), multiplications(folded)) == (1, [])
    feeds = {"x": random(*(2, 5, C)[-rank:], seed=9)}
    one, two = (literal_session(path, threads=1).run(feeds)["y"] for path in (folded, plain))
    assert np.abs(one - two).max() <= 2e-6 * np.abs(two).max()
    names = [tensor.name for tensor in load_graph(folded).graph.initializer]
    assert "first.bias_float32" not in names  # nothing reads it any more


def test_one_range_for_all_outputs_takes_no_divisor(tmp_path: Path) -> None:
    """A scale per channel would be applied number by number where channels lie last."""
    nodes, weights = convolution("first", "x", "h", 2)
    following, more = convolution("second", "h", "y", 4)
    shape = ["n", C, "h", "w"]
    model = save_graph(
        tmp_path / "model.onnx", [*nodes, *following], {"x": shape}, {"y": shape}, weights | more
    )
    folded, _ = coded(tmp_path, model, "onnxruntime", "second")
    assert len(multiplications(folded)) == 1
    decoders = [n for n in load_graph(folded).graph.node if n.input[0].endswith("_codes")]
    assert decoders
    assert not any(has_axis(n) for n in decoders)


def two_convolutions_behind_silu(folder: Path) -> Path:
    """One reads `x * sigmoid(x)`, and so does something that wants it as it is."""
    silu = [
        node("Sigmoid", ["x"], ["gate"], name="gate"),
        node("Mul", ["x", "gate"], ["h"], name="silu"),
        node("Abs", ["h"], ["other"], name="abs"),
    ]
    (first, more), (second, rest) = (
        convolution("second", "h", "y", 4),
        convolution("third", "h", "z", 5),
    )
    shape = ["n", C, "h", "w"]
    outputs = dict.fromkeys(("y", "z", "other"), shape)
    nodes = [*silu, *first, *second]
    return save_graph(folder / "model.onnx", nodes, {"x": shape}, outputs, more | rest)


def test_codes_of_convolutions_take_what_silu_cannot(tmp_path: Path) -> None:
    """A scale per channel in front of products that know of one; every code is the same."""
    model = two_convolutions_behind_silu(tmp_path)
    folded, plain = coded(tmp_path, model, "onnxruntime", "second")
    assert (len(multiplications(plain)), multiplications(folded)) == (1, [])
    feeds = {"x": random(2, C, 5, 7, seed=9)}
    one, two = (literal_session(path, threads=1).run(feeds) for path in (folded, plain))
    for name in ("y", "z", "other"):
        assert np.array_equal(one[name], two[name])
    (coder,) = (n for n in load_graph(folded).graph.node if n.input[0] == "h" and has_axis(n))
    assert coder.op_type == "QuantizeLinear"
    proofs = backend_for("onnxruntime").integer_sites(folded, ["second", "third"], example=feeds)
    assert all(proof.integer for proof in proofs.values())


def has_axis(found: NodeProto) -> bool:
    return any(attribute.name == "axis" for attribute in found.attribute)


def test_the_runtime_agrees_with_the_codes(tmp_path: Path) -> None:
    """Where ONNX Runtime fuses the convolution, its result is that of the graph as written."""
    model = two_convolutions_behind_silu(tmp_path)
    folded, plain = coded(tmp_path, model, "onnxruntime", "second")
    feeds = {"x": random(3, C, 6, 5, seed=11)}
    wanted = literal_session(plain, threads=1).run(feeds)
    found = backend_for("onnxruntime").open(folded, threads=1).run(feeds)
    step = 8.0 / 255.0  # of the requantised output
    for name in ("y", "z"):
        assert np.abs(found[name] - wanted[name]).max() <= 1.01 * step
        assert np.mean(found[name] == wanted[name]) > 0.98


@pytest.mark.parametrize("before", ["transpose", "convolution"])
def test_codes_whose_channels_the_runtime_may_put_last(tmp_path: Path, before: str) -> None:
    """A transpose, also one that ONNX Runtime puts around a convolution, travels to the codes."""
    nodes, weights = convolution("first", "x", "before", 2)
    shape = ["n", C, "h", "w"]
    if before == "transpose":
        nodes, weights = [node("Transpose", ["x"], ["before"], perm=[0, 3, 1, 2], name="t")], {}
    silu = [
        node("Sigmoid", ["before"], ["gate"], name="gate"),
        node("Mul", ["before", "gate"], ["h"], name="silu"),
    ]
    following, more = convolution("second", "h", "y", 4, kernel=1)
    given = ["n", "h", "w", C] if before == "transpose" else shape
    model = save_graph(
        tmp_path / "model.onnx", [*nodes, *silu, *following], {"x": given}, {"y": shape},
        weights | more,
    )  # fmt: skip
    folded, plain = coded(tmp_path, model, "onnxruntime", "second")
    assert len(multiplications(folded)) == len(multiplications(plain)) == 1
    coders = [n for n in load_graph(folded).graph.node if n.op_type == "QuantizeLinear"]
    assert coders
    assert not any(has_axis(n) for n in coders)


@pytest.mark.parametrize("target", CPU_TARGETS)
def test_codes_of_linears_do_not(tmp_path: Path, target: str) -> None:
    """Their channels lie last."""
    model = graph(tmp_path, activation())
    folded, plain = coded(tmp_path, model, target, "q")
    assert len(multiplications(folded)) == len(multiplications(plain)) == 1
    assert folded.read_bytes() == plain.read_bytes()


def test_other_targets_keep_the_product(tmp_path: Path) -> None:
    model = two_convolutions_behind_silu(tmp_path)
    folded, plain = coded(tmp_path, model, "openvino", "second")
    assert len(multiplications(folded)) == len(multiplications(plain)) == 1
