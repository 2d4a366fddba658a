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

from segquant_trt.backends.onnxruntime import literal_session
from segquant_trt.graph.bigfile import load_graph
from segquant_trt.records import (
    GraphFacts,
    KeepFloat,
    QuantPlan,
    SegmentPlan,
    SitePlan,
    Smoothing,
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
