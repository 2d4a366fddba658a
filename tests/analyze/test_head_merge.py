"""Merged heads, and merges that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from segquant_trt.analyze import analyze
from tests.analyze.graphs import Drawing, reasons, segments_of

B, S = "batch", "tokens"


def attention(d: Drawing) -> str:
    """[B, 4, S, 6]: probabilities times values."""
    return d.op("MatMul", d.input("p", B, 4, S, S), d.input("v", B, 4, S, 6), name="heads")


def transposed(d: Drawing, heads: str) -> str:
    return d.reshape(d.op("Transpose", heads, perm=[0, 2, 1, 3]), 0, -1, 24)


def folded_batch(d: Drawing) -> str:
    """[B*4, S, 6], as attention over flattened heads leaves it."""
    flat = d.op("MatMul", d.input("p", "bh", 9, 9), d.input("v", "bh", 9, 6), name="heads")
    return transposed(d, d.op("Reshape", flat, d.constant([-1, 4, 9, 6], np.int64)))


def heads_beside_rows(d: Drawing) -> str:
    """Linear attention: [B, 4, 6, S] -> [B, 24, S] -> [B, S, 24]."""
    heads = d.op("MatMul", d.input("p", B, 4, 6, 6), d.input("q", B, 4, 6, S), name="heads")
    return d.op("Transpose", d.reshape(heads, 0, 24, -1), perm=[0, 2, 1])


def fused(d: Drawing) -> str:
    x = [d.input(name, B, S, 24) for name in "qkv"]
    return d.op("Attention", *x, q_num_heads=4, kv_num_heads=4, name="heads")


def joined(d: Drawing) -> str:
    """Attention over two groups of tokens, each on its own."""
    text = d.op("MatMul", d.input("tp", B, 4, 7, 7), d.input("tv", B, 4, 7, 6))
    image = d.op("MatMul", d.input("p", B, 4, S, S), d.input("v", B, 4, S, 6))
    return transposed(d, d.op("Concat", text, image, axis=2, name="heads"))


MERGES: dict[str, Callable[[Drawing], str]] = {
    "transpose, reshape": lambda d: transposed(d, attention(d)),
    "with a cast": lambda d: transposed(d, d.op("Cast", attention(d), to=1)),
    "tokens sliced off": lambda d: d.slice(transposed(d, attention(d)), 7, 2**31, 1),
    "folded batch": folded_batch,
    "heads beside rows": heads_beside_rows,
    "fused attention": fused,
    "tokens joined": joined,
    "native attention": lambda d: transposed(d, d.op(
        "Attention", *(d.input(name, B, 4, S, 6) for name in "qkv"), name="heads")),
    "einsum": lambda d: d.reshape(d.op(
        "Einsum", d.input("p", B, 4, S, S), d.input("v", B, S, 4, 6),
        equation="bhst,bthd->bshd", name="heads"), 0, -1, 24),
    "unknown attention": lambda d: transposed(d, d.op(
        "Flash", d.input("q", B, 4, S, 6), domain="my.ops", name="heads")),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(MERGES))
def test_one_segment_per_head(kind: str, tmp_path: Path) -> None:
    drawing = Drawing(opset=23)
    merged = MERGES[kind](drawing)
    drawing.linear("site", merged, 24, 3)
    model = drawing.model()
    if kind == "unknown attention":
        kind_of = onnx.helper.make_tensor_value_info("heads", 1, [B, 4, S, 6])
        model.graph.value_info.append(kind_of)
    path = tmp_path / "merged.onnx"
    path.write_bytes(model.SerializeToString())
    (found,) = segments_of(analyze(path), "site")
    assert (found.pattern, found.sizes, found.tensors) == ("head_merge", (6,) * 4, ("heads",) * 4)


def test_heads_inside_a_concat_keep_the_concat(tmp_path: Path) -> None:
    d = Drawing()
    joined = d.op("Concat", transposed(d, attention(d)), d.input("mlp", B, S, 96), axis=2)
    d.linear("site", joined, 120, 3)
    facts = d.facts(tmp_path)
    (found,) = segments_of(facts, "site")
    assert (found.pattern, found.sizes) == ("concat", (24, 96))
    assert reasons(facts, "site") == ["its heads are merged inside a segment of a Concat"]


def test_patches_are_no_heads(tmp_path: Path) -> None:
    d = Drawing()
    image = d.reshape(d.input("x", 2, 3, 8, 8), 2, 3, 4, 2, 4, 2)
    patches = d.reshape(d.op("Transpose", image, perm=[0, 2, 4, 1, 3, 5]), 2, 16, 12)
    d.linear("site", patches, 12, 3)
    facts = d.facts(tmp_path)
    assert segments_of(facts, "site") == []
    assert reasons(facts, "site") == ["more than two axes are merged: patches, no heads"]


def test_one_head_is_no_merge(tmp_path: Path) -> None:
    d = Drawing()
    heads = d.op("MatMul", d.input("p", B, 1, S, S), d.input("v", B, 1, S, 6))
    merged = d.reshape(d.op("Transpose", heads, perm=[0, 2, 1, 3]), 0, -1, 6)
    d.linear("site", merged, 6, 3)
    facts = d.facts(tmp_path)
    assert facts.segments == facts.rejections == ()


def test_norms_over_heads_that_join_again_are_no_merge(tmp_path: Path) -> None:
    d = Drawing()
    x = d.linear("before", d.input("x", B, S, 5), 5, 24)
    heads = d.reshape(x, 0, -1, 4, 6)
    normal = d.op("LayerNormalization", heads, d.constant(np.ones(6)), axis=-1)
    d.linear("site", d.reshape(normal, 0, -1, 24), 24, 3)
    facts = d.facts(tmp_path)
    assert facts.segments == facts.rejections == ()
