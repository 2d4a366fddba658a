"""Divided outputs, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.analyze.graphs import Drawing, reasons, segments_of

B, S = "batch", "tokens"
Parts = list[str]


def gemm(d: Drawing, columns: int = 24) -> str:
    """A Linear of a vector, as modulation is made."""
    weight, bias = d.constant(np.ones((columns, 5))), d.constant(np.ones(columns))
    result = d.op("Gemm", d.input("temb", B, 5), weight, bias, transB=1, name="site")
    d.nodes[-1].name = "site"
    return result


def rows(d: Drawing, columns: int = 24) -> str:
    return d.linear("site", d.input("x", B, S, 5), 5, columns)


def slices(d: Drawing, source: str, *bounds: int, axis: int) -> Parts:
    return [d.slice(source, a, b, axis) for a, b in pairwise(bounds)]


def table(d: Drawing, source: str) -> str:
    """[B, 24] -> [B, 6, 4], a learned table added."""
    return d.op("Add", d.constant(np.ones((1, 6, 4))), d.reshape(source, 0, 6, -1))


def fused_qkv(d: Drawing) -> Parts:
    heads = d.op("Transpose", d.reshape(rows(d), 0, -1, 3, 2, 4), perm=[2, 0, 3, 1, 4])
    indices = [d.constant(i, np.int64) for i in range(3)]
    return [d.op("Gather", heads, index, axis=0) for index in indices]


def nested(d: Drawing) -> Parts:
    shift, rest = d.split(gemm(d), 4, 20)
    return [shift, *d.split(d.op("Identity", rest), 8, 12)]


def per_block(d: Drawing) -> Parts:
    """One Gemm, and a table and a Split in every block."""
    source = gemm(d)
    first = d.split(table(d, source), *[1] * 6, axis=1)
    for _ in range(2):
        d.split(table(d, source), *[1] * 6, axis=1)
    return first


def sequence(d: Drawing) -> Parts:
    parts = d.op("SplitToSequence", gemm(d), d.constant(6, np.int64), axis=1)
    return [d.op("SequenceAt", parts, d.constant(i, np.int64)) for i in range(4)]


def sum_of_two(d: Drawing) -> Parts:
    return d.split(d.op("Add", gemm(d), d.input("other", B, 24)), 12, 12)


def joined_tokens(d: Drawing) -> Parts:
    both = d.op("Concat", rows(d), d.input("text", B, 7, 24), axis=1)
    return d.split(both, 8, 16)


FOUND: dict[str, tuple[Callable[[Drawing], Parts], str, tuple[int, ...]]] = {
    "split": (lambda d: d.split(gemm(d), 4, 8, 12, axis=1), "split", (4, 8, 12)),
    "split of rows": (lambda d: d.split(rows(d), 12, 12), "split", (12, 12)),
    "equal parts": (
        lambda d: d.ops("Split", gemm(d), outputs=4, axis=1, num_outputs=4), "split", (6,) * 4),
    "unsqueezed": (lambda d: d.split(d.unsqueeze(gemm(d), 1), 8, 8, 8, axis=2), "split", (8,) * 3),
    "slices": (lambda d: slices(d, rows(d), 0, 7, 24, axis=-1), "slice", (7, 17)),
    "slices in any order": (
        lambda d: slices(d, rows(d), 0, 7, 24, axis=2)[::-1][::-1], "slice", (7, 17)),
    "silu first": (lambda d: d.split(d.silu(gemm(d)), 12, 12), "split", (12, 12)),
    "cast first": (lambda d: d.split(d.op("Cast", gemm(d), to=1), 12, 12), "split", (12, 12)),
    "reshape": (lambda d: d.split(d.reshape(gemm(d), 0, 6, -1), *[1] * 6, axis=1),
                "reshape_split", (4,) * 6),
    "table": (lambda d: d.split(table(d, gemm(d)), 1, 2, 3, axis=1), "reshape_split", (4, 8, 12)),
    "table sliced": (lambda d: slices(d, table(d, gemm(d)), 0, 2, 6, axis=1),
                     "reshape_split", (8, 16)),
    "table in every block": (per_block, "reshape_split", (4,) * 6),
    "fused qkv": (fused_qkv, "reshape_split", (8,) * 3),
    "nested": (nested, "split", (4, 8, 12)),
    "sequence": (sequence, "split", (6,) * 4),
    "sum of two": (sum_of_two, "split", (12, 12)),
    "behind joined tokens": (joined_tokens, "split", (8, 16)),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(FOUND))
def test_divided_outputs_are_found(kind: str, tmp_path: Path) -> None:
    build, pattern, sizes = FOUND[kind]
    drawing = Drawing()
    parts = build(drawing)
    facts = drawing.facts(tmp_path)
    (found,) = segments_of(facts, "site", "output")
    assert (found.pattern, found.sizes, found.tensors) == (pattern, sizes, tuple(parts))
    assert reasons(facts, "site") == []


def test_geglu_halves_of_a_convolution(tmp_path: Path) -> None:
    d = Drawing()
    value, gate = d.split(d.conv("conv_in", d.input("x", B, 3, "h", "w"), 3, 8), 4, 4, axis=1)
    d.conv("conv_out", d.op("Mul", value, d.silu(gate)), 4, 3)
    facts = d.facts(tmp_path)
    (found,) = segments_of(facts, "conv_in", "output")
    assert found.sizes == (4, 4)
    assert [(p.site, p.activation) for p in facts.polarity] == [("conv_out", "swiglu")]


def test_a_chunk_that_nobody_reads_has_no_slice(tmp_path: Path) -> None:
    for bounds, sizes in (((0, 4, 8, 12, 16), (4,) * 6), ((0, 8, 12), (8, 4, 12))):
        d = Drawing()
        parts = slices(d, gemm(d), *bounds, axis=1)
        (found,) = segments_of(d.facts(tmp_path), "site", "output")
        assert found.sizes == sizes
        assert found.tensors == (*parts, *[""] * (len(sizes) - len(parts)))


def test_halves_of_which_one_is_dead_and_the_other_divided(tmp_path: Path) -> None:
    d = Drawing()
    parts = slices(d, d.slice(gemm(d), 0, 12, 1), 0, 4, 8, 12, axis=1)
    (found,) = segments_of(d.facts(tmp_path), "site", "output")
    assert (found.sizes, found.tensors) == ((4, 4, 4, 12), (*parts, ""))


def interleaved(d: Drawing) -> Parts:
    return d.split(d.reshape(rows(d), 0, -1, 4, 6), 2, 4, axis=3)


def every_second(d: Drawing) -> Parts:
    start, end, axis, step = (d.constant([v], np.int64) for v in (0, 24, 2, 2))
    return [d.op("Slice", rows(d), start, end, axis, step)]


def computed_sizes(d: Drawing) -> Parts:
    sizes = d.op("Cast", d.input("sizes", 2), to=7)
    return d.ops("Split", gemm(d), sizes, outputs=2, axis=1)


def computed_bounds(d: Drawing) -> Parts:
    end = d.op("Cast", d.input("end", 1), to=7)
    start, axis = d.constant([0], np.int64), d.constant([1], np.int64)
    return [d.op("Slice", gemm(d), start, end, axis)]


def overlapping(d: Drawing) -> Parts:
    source = rows(d)
    return [d.slice(source, 0, 16, 2), d.slice(source, 8, 24, 2)]


def computed_reshape(d: Drawing) -> Parts:
    shape = d.op("Cast", d.input("shape", 3), to=7)
    return d.split(d.op("Reshape", gemm(d), shape), 3, 4, axis=1)


def scattered(d: Drawing) -> Parts:
    return [d.op("Gather", gemm(d), d.constant([3, 0, 7], np.int64), axis=1)]


NEAR: dict[str, tuple[Callable[[Drawing], Parts], str]] = {
    "interleaved": (interleaved, "interleave"),
    "every second": (every_second, "every 2th"),
    "computed sizes": (computed_sizes, "sizes of the split are computed"),
    "computed bounds": (computed_bounds, "bounds of the slice are computed"),
    "overlap": (overlapping, "overlap at channel 8"),
    "gap": (lambda d: [d.slice(rows(d), 0, 20, 2)], "channels 20 to 23"),
    "scattered": (scattered, "scattered indices"),
    "computed reshape": (computed_reshape, "regroups"),
}


@pytest.mark.parametrize("kind", list(NEAR))
def test_near_misses_say_why(kind: str, tmp_path: Path) -> None:
    build, reason = NEAR[kind]
    drawing = Drawing()
    build(drawing)
    facts = drawing.facts(tmp_path)
    assert segments_of(facts, "site", "output") == []
    (rejection,) = facts.rejections
    assert (rejection.site, rejection.pattern) == ("site", "split")
    assert reason in rejection.reason
    assert rejection.nodes


def test_divided_tokens_are_nothing(tmp_path: Path) -> None:
    d = Drawing()
    x = d.linear("site", d.input("x", B, 12, 5), 5, 24)
    d.split(x, 4, 8, axis=1)
    d.slice(d.linear("dynamic", d.input("y", B, S, 5), 5, 24), 0, 3, 1)
    facts = d.facts(tmp_path)
    assert facts.segments == facts.rejections == ()


def test_a_whole_reader_beside_a_split_is_told(tmp_path: Path) -> None:
    d = Drawing()
    x = rows(d)
    d.split(x, 12, 12)
    d.op("Shape", x)
    d.op("Softmax", x, name="soft")
    facts = d.facts(tmp_path)
    (found,) = segments_of(facts, "site", "output")
    assert found.sizes == (12, 12)
    (rejection,) = facts.rejections
    assert "also read whole (by Softmax)" in rejection.reason
    assert rejection.nodes == ("n:soft",)


def test_a_residual_stream_is_not_followed_into_every_linear(tmp_path: Path) -> None:
    d = Drawing()
    stream = d.input("x", B, S, 8)
    for index in range(4):
        branch = d.linear(f"l{index}", d.op("Relu", stream), 8, 8)
        stream = d.op("Add", stream, branch)
    d.split(stream, 4, 4)
    facts = d.facts(tmp_path)
    assert [found.site for found in facts.segments] == ["l3"]


def test_two_divisions_of_one_output_are_both_told(tmp_path: Path) -> None:
    d = Drawing()
    x = rows(d)
    d.split(x, 8, 16)
    d.split(x, 12, 12)
    found = segments_of(d.facts(tmp_path), "site", "output")
    assert {entry.sizes for entry in found} == {(8, 16), (12, 12)}


def test_a_finer_division_elsewhere_refines(tmp_path: Path) -> None:
    d = Drawing()
    x = rows(d)
    halves = d.split(x, 12, 12)
    quarters = d.split(x, 6, 6, 6, 6)
    (found,) = segments_of(d.facts(tmp_path), "site", "output")
    assert (found.sizes, found.tensors) == ((6, 6, 6, 6), tuple(quarters))
    assert not set(halves) & set(found.tensors)
