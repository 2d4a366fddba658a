"""Divisors fold into what computes the smoothed tensor: the same function, one node less.

The sites keep float activations (weights alone are coded, at the same codes either way), so that
both graphs differ by float rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper

from segquant_trt.backends import backend_for
from segquant_trt.backends.onnxruntime import literal_session
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import (
    TARGETS,
    GraphFacts,
    KeepFloat,
    QuantPlan,
    SegmentPlan,
    SitePlan,
    Smoothing,
    Symmetric,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.rewrite import rewrite
from segquant_trt.rewrite.fold_divisors import FoldDivisors
from tests.small_graphs import (
    Array,
    facts_of,
    full_range_weight,
    linear_nodes,
    plan_of,
    save_graph,
)

C = 16
Weights = dict[str, Array]
Producer = tuple[list[NodeProto], Weights]
node = helper.make_node


def random(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def layer_norm() -> Producer:
    nodes = [node("LayerNormalization", ["x", "s", "b"], ["a"], name="norm", axis=-1)]
    return nodes, {"s": random(C), "b": random(C, seed=2)}


def stored_norm() -> Producer:
    """Without bias; its scale in float16 behind a Cast, and read by another norm too."""
    nodes = [
        node("Cast", ["s"], ["s32"], to=1),
        node("LayerNormalization", ["x", "s32"], ["a"], name="norm", axis=-1),
        node("LayerNormalization", ["x", "s32"], ["other"], name="other", axis=-1),
    ]
    return nodes, {"s": random(C).astype(np.float16)}


def constant_pair() -> Producer:
    """`x * k + 3`, k per channel and the sum a scalar."""
    nodes = [node("Mul", ["x", "k"], ["m"], name="m"), node("Add", ["m", "three"], ["a"], name="p")]
    return nodes, {"k": random(1, 1, C), "three": np.array(3.0, dtype=np.float32)}


def rms_by_hand() -> Producer:
    """`weight * (x / rms)`, the decomposed form."""
    nodes = [
        node("Mul", ["x", "x"], ["square"], name="square"),
        node("ReduceMean", ["square", "last"], ["mean"], name="mean", keepdims=1),
        node("Sqrt", ["mean"], ["root"], name="root"),
        node("Div", ["x", "root"], ["normal"], name="normal"),
        node("Mul", ["s", "normal"], ["a"], name="scaled"),
    ]
    return nodes, {"s": random(C), "last": ints(-1)}


def modulated() -> Producer:
    """adaLN: `norm(x) * (1 + scale) + shift` from chunks of one linear of e."""
    nodes = [
        node("LayerNormalization", ["x", "ones"], ["n"], name="norm", axis=-1),
        node("Gemm", ["e", "mod.weight", "mod.bias"], ["chunks"], name="mod", transB=1),
        node("Unsqueeze", ["chunks", "one"], ["rows"], name="rows"),
        node("Split", ["rows", "sizes"], ["shift", "scale", "gate"], name="split", axis=2),
        node("Add", ["scale", "unit"], ["factor"], name="factor"),
        node("Mul", ["n", "factor"], ["m"], name="m"),
        node("Add", ["m", "shift"], ["a"], name="sum"),
        node("Sigmoid", ["gate"], ["other"], name="other"),
    ]
    weights = {
        "ones": np.ones(C, dtype=np.float32), "mod.weight": random(3 * C, C),
        "mod.bias": random(3 * C, seed=2), "one": ints(1), "sizes": ints(C, C, C),
        "unit": np.array(1.0, dtype=np.float32),
    }  # fmt: skip
    return nodes, weights


def gated() -> Producer:
    """GEGLU: `a * gelu(b)` from the halves of one linear, stored as torch does."""
    nodes = [
        node("Transpose", ["up.weight"], ["up.t"], perm=[1, 0]),
        node("MatMul", ["x", "up.t"], ["up.y"], name="up"),
        node("Add", ["up.y", "up.bias"], ["h"], name="up.add"),
        node("Split", ["h"], ["left", "right"], name="halves", axis=-1, num_outputs=2),
        node("Gelu", ["right"], ["gelu"], name="gelu"),
        node("Mul", ["left", "gelu"], ["a"], name="gated"),
    ]
    return nodes, {"up.weight": random(2 * C, C), "up.bias": random(2 * C, seed=2)}


def joined() -> Producer:
    """Two norms, one below the other along the channels, a Transpose back and forth."""
    nodes = [
        node("Split", ["x"], ["p", "q"], name="cut", axis=-1, num_outputs=2),
        node("LayerNormalization", ["p", "s"], ["np"], name="np", axis=-1),
        node("LayerNormalization", ["q", "s"], ["nq"], name="nq", axis=-1),
        node("Concat", ["np", "nq"], ["c"], name="c", axis=2),
        node("Transpose", ["c"], ["t"], name="t", perm=[1, 0, 2]),
        node("Transpose", ["t"], ["a"], name="u", perm=[1, 0, 2]),
    ]
    return nodes, {"s": random(C // 2)}


FOLDED: dict[str, Callable[[], Producer]] = {
    "layer_norm": layer_norm, "stored_norm": stored_norm, "constant_pair": constant_pair,
    "rms_by_hand": rms_by_hand, "modulated": modulated, "gated": gated, "joined": joined,
}  # fmt: skip


def activation() -> Producer:
    return [node("Gelu", ["x"], ["a"], name="gelu")], {}


def read_twice() -> Producer:
    nodes, weights = layer_norm()
    return [*nodes, node("Sigmoid", ["a"], ["other"], name="other")], weights


def squared() -> Producer:
    nodes = [
        node("LayerNormalization", ["x", "s"], ["n"], name="norm", axis=-1),
        node("Mul", ["n", "n"], ["a"], name="square"),
    ]
    return nodes, {"s": random(C)}


def one_is_read_elsewhere() -> Producer:
    """The sum of two norms, one of which is an output."""
    nodes = [
        node("LayerNormalization", ["x", "s"], ["n"], name="norm", axis=-1),
        node("LayerNormalization", ["x", "s"], ["other"], name="other", axis=-1),
        node("Add", ["n", "other"], ["a"], name="sum"),
    ]
    return nodes, {"s": random(C)}


KEPT: dict[str, Callable[[], Producer]] = {
    "activation": activation, "read_twice": read_twice, "squared": squared,
    "one_is_read_elsewhere": one_is_read_elsewhere,
}  # fmt: skip


def graph(folder: Path, producer: Producer, *, static: bool = False) -> Path:
    """The producer, and two sites that read its result `a`."""
    nodes, weights = producer
    sites = [
        node("MatMul", ["a", f"{name}.weight"], [f"{name}.y"], name=name) for name in ("q", "k")
    ]
    weights = weights | {f"{n}.weight": full_range_weight((24, C), 3).T.copy() for n in ("q", "k")}
    batch: Sequence[str | int] = (2, 5) if static else ("n", "t")
    inputs = {"x": [*batch, C], "e": [batch[0], C]}
    outputs = ["q.y", "k.y"]
    outputs += [name for n in nodes for name in n.output if name == "other"]
    used = any("e" in n.input for n in nodes)
    if not used:
        del inputs["e"]
    return save_graph(folder / "model.onnx", [*nodes, *sites], inputs, outputs, weights)


def smoothed(facts: GraphFacts, key: str, *, others: bool) -> QuantPlan:
    """Weights alone are coded: of the sites that read `a` smoothed, of others where asked."""
    plan = plan_of(facts, "openvino", lambda _: KeepFloat())

    def of(site: SitePlan) -> Treatment:
        reads = next(s for s in facts.sites if s.name == site.site)
        if reads.activation != "a" and not others:
            return left_in_float(reads.in_features)
        part = SegmentPlan(channels=reads.in_features, activation=KeepFloat())
        smoothing = Smoothing(divisor=key, alpha=0.5, segment_exponent=None)
        return Treatment(
            segments=(part,),
            smoothing=smoothing if reads.activation == "a" else None,
            weight=WeightPlan(),
        )

    sites = tuple(replace(site, treatment=of(site)) for site in plan.sites)
    return replace(plan, sites=sites)


def both(folder: Path, model: Path, divisor: Array, *, others: bool) -> tuple[Path, Path]:
    """The rewritten graph with and without folding."""
    facts = facts_of(model)
    plan = smoothed(facts, "d-1", others=others)
    paths = []
    for name in ("folded", "plain"):
        with pytest.MonkeyPatch.context() as patch:
            if name == "plain":
                patch.setattr(FoldDivisors, "apply", lambda self, model: None)
            path = folder / f"{name}.onnx"
            rewrite(model, model.parent, facts, plan, path, arrays={"d-1": divisor})
            paths.append(path)
    return paths[0], paths[1]


def multiplications(path: Path) -> list[str]:
    nodes = load_graph(path).graph.node
    return [n.name for n in nodes if n.op_type == "Mul" and n.name.endswith("_smoothed")]


def feeds_of(path: Path, seed: int) -> dict[str, Array]:
    given = {value.name for value in load_graph(path).graph.input}
    feeds = {"x": random(2, 5, C, seed=seed), "e": random(2, C, seed=seed + 1)}
    return {name: array for name, array in feeds.items() if name in given}


def assert_same(first: Path, second: Path, seed: int = 5) -> None:
    feeds = feeds_of(first, seed)
    one, two = (literal_session(path, threads=1).run(feeds) for path in (first, second))
    assert one.keys() == two.keys()
    for name in one:
        assert np.abs(one[name] - two[name]).max() <= 4e-6 * np.abs(two[name]).max()


def divisors(seed: int) -> Array:
    return np.exp2(np.random.default_rng(seed).uniform(-4, 4, C)).astype(np.float32)


@pytest.mark.parametrize("others", [False, True], ids=["sites alone", "all linears"])
@pytest.mark.parametrize("name", list(FOLDED))
def test_folded(tmp_path: Path, name: str, others: bool) -> None:
    folded, plain = both(tmp_path, graph(tmp_path, FOLDED[name]()), divisors(1), others=others)
    assert len(multiplications(plain)) == 1
    large = [n for n in multiplications(folded) if not n.startswith("shift")]
    assert large == []
    assert_same(folded, plain)


@pytest.mark.parametrize("name", list(KEPT))
def test_kept(tmp_path: Path, name: str) -> None:
    folded, plain = both(tmp_path, graph(tmp_path, KEPT[name]()), divisors(1), others=True)
    assert len(multiplications(folded)) == len(multiplications(plain)) == 1
    assert folded.read_bytes() == plain.read_bytes()


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([*FOLDED]), st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_folding_never_changes_the_function(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, others: bool, static: bool
) -> None:
    folder = tmp_path_factory.mktemp("folded")
    model = graph(folder, FOLDED[name](), static=static)
    assert_same(*both(folder, model, divisors(seed), others=others), seed=seed % 1000)


def test_coded_modulation_takes_the_divisor_into_its_scales(tmp_path: Path) -> None:
    """No Mul is left at all, and the codes are those of the unscaled weight."""
    folded, plain = both(tmp_path, graph(tmp_path, modulated()), divisors(1), others=True)
    assert multiplications(folded) == []
    sizes = [path.with_suffix(".weights").stat().st_size for path in (folded, plain)]
    assert sizes[0] == sizes[1]


def test_a_small_vector_is_multiplied_where_the_weight_would_grow(tmp_path: Path) -> None:
    nodes, weights = modulated()
    nodes = [node("Cast", ["mod.weight"], ["mod.cast"], to=1), *nodes]
    nodes[2].input[1] = "mod.cast"
    weights["mod.weight"] = weights["mod.weight"].astype(np.float16)
    folded, plain = both(tmp_path, graph(tmp_path, (nodes, weights)), divisors(1), others=False)
    assert multiplications(folded) == ["shift_smoothed"]
    assert_same(folded, plain)
    stored = {tensor.name: tensor.data_type for tensor in load_graph(folded).graph.initializer}
    assert stored["mod.weight"] == 10


def exact_divisors() -> Array:
    """Powers of two: codes are the same to the bit wherever they are applied."""
    return np.exp2(np.random.default_rng(7).integers(-3, 4, C)).astype(np.float32)


def coded(folder: Path, model: Path, target: str, smooth: str) -> tuple[Path, Path]:
    """Every site coded, the one called `smooth` behind a divisor; with and without folding."""
    facts = facts_of(model)
    scheme = Symmetric(scale=0.0625)
    plan = plan_of(facts, target, lambda _: scheme, output_ranges={"first": (-9.0, 9.0)})
    smoothing = Smoothing(divisor="d-1", alpha=0.5, segment_exponent=None)
    sites = tuple(
        replace(site, treatment=replace(site.treatment, smoothing=smoothing))
        if site.site == smooth
        else site
        for site in plan.sites
    )
    paths = []
    for name in ("folded", "plain"):
        with pytest.MonkeyPatch.context() as patch:
            if name == "plain":
                patch.setattr(FoldDivisors, "apply", lambda self, model: None)
            path = folder / f"{name}.onnx"
            arrays = {"d-1": exact_divisors()}
            rewrite(model, folder, facts, replace(plan, sites=sites), path, arrays=arrays)
            paths.append(path)
    return paths[0], paths[1]


def convolution(name: str, source: str, result: str, seed: int) -> Producer:
    made = node("Conv", [source, f"{name}.w", f"{name}.b"], [result], name=name, pads=[1] * 4)
    return [made], {f"{name}.w": full_range_weight((C, C, 3, 3), seed), f"{name}.b": random(C)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("before", ["group norm", "convolution"])
def test_before_a_convolution(tmp_path: Path, before: str, target: str) -> None:
    """Also into the scales of a requantised output, which are one per channel then."""
    nodes, weights = convolution("first", "x", "h", 2)
    if before == "group norm":
        nodes = [node("GroupNormalization", ["x", "s", "t"], ["h"], name="norm", num_groups=4)]
        weights = {"s": random(C), "t": random(C, seed=3)}
    following, more = convolution("second", "h", "y", 4)
    shape = ["n", C, "h", "w"]
    model = save_graph(
        tmp_path / "model.onnx", [*nodes, *following], {"x": shape}, {"y": shape}, weights | more
    )
    folded, plain = coded(tmp_path, model, target, "second")
    assert len(multiplications(plain)) == 1
    assert multiplications(folded) == []
    feeds = {"x": random(2, C, 6, 5, seed=9)}
    one, two = (literal_session(path, threads=1).run(feeds)["y"] for path in (folded, plain))
    assert np.abs(one - two).max() <= 2e-6 * np.abs(two).max()
    proofs = backend_for(target).integer_sites(
        folded, [s.name for s in facts_of(model).sites], example=feeds
    )
    assert all(proof.integer for proof in proofs.values())


@pytest.mark.parametrize("target", TARGETS)
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


@pytest.mark.parametrize("target", TARGETS)
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
