"""Concatenated and stacked inputs, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.analyze.graphs import Drawing, reasons, segments_of

B, S = "batch", "tokens"


def pair(d: Drawing) -> tuple[str, str]:
    return d.input("a", B, S, 8), d.input("b", B, S, 24)


def norm(d: Drawing, x: str, kind: str) -> str:
    """A normalisation of [B, S, 32], native or as exporters decompose it."""
    scale, shift = d.constant(np.ones(32)), d.constant(np.zeros(32))
    axes = d.constant([-1], np.int64)
    if kind == "layer":
        return d.op("LayerNormalization", x, scale, shift, axis=-1)
    if kind == "rms":
        square = d.op("ReduceMean", d.op("Pow", x, d.constant(2.0)), axes)
        root = d.op("Sqrt", d.op("Add", square, d.constant(1e-6)))
        return d.op("Mul", d.op("Div", x, root), scale)
    centred = d.op("Sub", x, d.op("ReduceMean", x, axes))
    variance = d.op("ReduceMean", d.op("Mul", centred, centred), axes)
    root = d.op("Sqrt", d.op("Add", variance, d.constant(1e-6)))
    return d.op("Add", d.op("Mul", d.op("Div", centred, root), scale), shift)


def modulated(d: Drawing, x: str) -> str:
    """x (1 + scale) + shift with a scale and a shift per sample."""
    scale, shift = d.input("scale", B, 1, 32), d.input("shift", B, 1, 32)
    return d.op("Add", d.op("Mul", x, d.op("Add", scale, d.constant(1.0))), shift)


def erf_gelu(d: Drawing, x: str) -> str:
    inner = d.op("Add", d.op("Erf", d.op("Div", x, d.constant(2**0.5))), d.constant(1.0))
    return d.op("Mul", d.op("Mul", x, inner), d.constant(0.5))


def through_heads(d: Drawing, x: str) -> str:
    """To heads, and back."""
    heads = d.op("Transpose", d.reshape(x, 0, -1, 4, 8), perm=[0, 2, 1, 3])
    back = d.op("Transpose", d.op("Relu", heads), perm=[0, 2, 1, 3])
    return d.reshape(back, 0, -1, 32)


BETWEEN: dict[str, Callable[[Drawing, str], str]] = {
    "nothing": lambda d, x: x,
    "layer norm": lambda d, x: norm(d, x, "layer"),
    "decomposed layer norm": lambda d, x: norm(d, x, "decomposed"),
    "decomposed RMS norm": lambda d, x: norm(d, x, "rms"),
    "modulation": modulated,
    "silu": lambda d, x: d.silu(x),
    "gelu by erf": erf_gelu,
    "cast": lambda d, x: d.op("Cast", x, to=1),
    "dropout": lambda d, x: d.op("Dropout", x),
    "rows folded": lambda d, x: d.reshape(x, -1, 32),
    "tokens sliced": lambda d, x: d.slice(x, 3, 2**31, 1),
    "tokens gathered": lambda d, x: d.op("Gather", x, d.constant(0, np.int64), axis=1),
    "tokens averaged": lambda d, x: d.op("ReduceMean", x, d.constant([1], np.int64), keepdims=0),
    "there and back": lambda d, x: d.op(
        "Transpose", d.op("Transpose", x, perm=[0, 2, 1]), perm=[0, 2, 1]),
    "through heads": through_heads,
    "constant positions": lambda d, x: d.op("Add", x, d.constant(np.ones((1, 1, 32)))),
    "quantised": lambda d, x: d.op(
        "DequantizeLinear", d.op("QuantizeLinear", x, d.constant(0.1), d.constant(0, np.int8)),
        d.constant(0.1), d.constant(0, np.int8)),
    "masked": lambda d, x: d.op("Where", d.op("Less", x, d.constant(9.0)), x, d.constant(0.0)),
    "expanded": lambda d, x: d.op("Expand", x, d.constant([1, 1, 32], np.int64)),
}  # fmt: skip


@pytest.mark.parametrize("between", list(BETWEEN))
def test_unequal_segments_are_found_behind(between: str, tmp_path: Path) -> None:
    drawing = Drawing()
    joined = drawing.op("Concat", *pair(drawing), axis=-1)
    drawing.linear("site", BETWEEN[between](drawing, joined), 32, 4)
    (found,) = segments_of(drawing.facts(tmp_path), "site")
    assert (found.pattern, found.sizes, found.tensors) == ("concat", (8, 24), ("a", "b"))
    assert not found.trivial


def group_norm(d: Drawing, x: str, channels: int, *, native: bool) -> str:
    if native:
        scale, shift = d.constant(np.ones(channels)), d.constant(np.zeros(channels))
        return d.op("GroupNormalization", x, scale, shift, num_groups=4)
    grouped = d.op("Reshape", x, d.constant([0, 4, -1], np.int64))
    normal = d.op("InstanceNormalization", grouped, d.constant(np.ones(4)), d.constant(np.zeros(4)))
    wide = d.op("Reshape", normal, d.op("Shape", x))
    return d.op("Mul", wide, d.constant(np.ones((channels, 1, 1))))


@pytest.mark.parametrize("native", [True, False])
def test_a_skip_connection_is_segmented_at_both_of_its_readers(
    native: bool, tmp_path: Path
) -> None:
    d = Drawing()
    hidden, skip = d.input("hidden", B, 20, "h", "w"), d.input("skip", B, 12, "h", "w")
    joined = d.op("Concat", hidden, skip, axis=1)
    first = d.conv("conv1", d.silu(group_norm(d, joined, 32, native=native)), 32, 8)
    shortcut = d.conv("conv_shortcut", joined, 32, 8, kernel=1)
    d.op("Add", first, shortcut)
    facts = d.facts(tmp_path)
    for site in ("conv1", "conv_shortcut"):
        (found,) = segments_of(facts, site)
        assert (found.sizes, found.tensors) == ((20, 12), ("hidden", "skip"))
    polar = {(entry.site, entry.segment, entry.activation) for entry in facts.polarity}
    assert polar == {("conv1", None, "silu")}


def test_nested_concats_are_flattened_to_their_leaves(tmp_path: Path) -> None:
    d = Drawing()
    a, b = pair(d)
    inner = norm(d, d.op("Concat", a, b, axis=2), "layer")
    c = d.input("c", B, S, 5)
    d.linear("site", d.op("Concat", c, inner, axis=2), 37, 4)
    (found,) = segments_of(d.facts(tmp_path), "site")
    assert (found.sizes, found.tensors) == ((5, 8, 24), ("c", "a", "b"))


def test_a_segment_that_is_a_split_output_is_a_segment(tmp_path: Path) -> None:
    d = Drawing()
    gate, value = d.split(d.input("x", B, S, 12), 4, 8)
    d.linear("site", d.op("Concat", value, d.input("y", B, S, 3), axis=-1), 11, 4)
    d.op("Relu", gate)
    (found,) = segments_of(d.facts(tmp_path), "site")
    assert (found.sizes, found.tensors) == ((8, 3), (value, "y"))


def test_halves_that_change_places_are_the_first_concats_operands(tmp_path: Path) -> None:
    d = Drawing()
    angles = d.op("Mul", d.input("timestep", B, 1), d.constant(np.ones((1, 8))))
    wave = d.op("Concat", d.op("Sin", angles, name="sin"), d.op("Cos", angles, name="cos"), axis=-1)
    flipped = d.op("Concat", d.slice(wave, 8, 2**31, -1), d.slice(wave, 0, 8, -1), axis=-1)
    d.linear("site", flipped, 16, 4)
    (found,) = segments_of(d.facts(tmp_path), "site")
    assert (found.sizes, found.tensors, found.trivial) == ((8, 8), ("cos", "sin"), True)


def test_a_padded_sinusoid_is_trivial_too(tmp_path: Path) -> None:
    d = Drawing()
    angles = d.op("Mul", d.input("timestep", 2, 1), d.constant(np.ones((1, 4))))
    zeros = d.constant(np.zeros((2, 1)))
    wave = d.op("Concat", d.op("Sin", angles), d.op("Cos", angles), zeros, axis=1)
    d.linear("site", wave, 9, 4)
    d.linear("learned", d.op("Concat", d.op("Sin", angles), angles, axis=1), 8, 4)
    facts = d.facts(tmp_path)
    assert [(s.site, s.sizes, s.trivial) for s in facts.segments] == [
        ("site", (4, 4, 1), True), ("learned", (4, 4), False),
    ]  # fmt: skip


def test_a_slice_of_one_operand_is_no_concat(tmp_path: Path) -> None:
    d = Drawing()
    joined = d.op("Concat", *pair(d), axis=-1)
    d.linear("site", d.slice(joined, 10, 20, -1), 10, 4)
    facts = d.facts(tmp_path)
    assert segments_of(facts, "site") == []
    assert reasons(facts, "site") == []


def test_stacked_slices_are_segments(tmp_path: Path) -> None:
    d = Drawing()
    parts = [d.input(name, B, S, 6) for name in "abc"]
    stacked = d.op("Concat", *(d.unsqueeze(part, 2) for part in parts), axis=2)
    d.linear("site", d.reshape(stacked, 0, -1, 18), 18, 4)
    (found,) = segments_of(d.facts(tmp_path), "site")
    assert (found.pattern, found.sizes, found.tensors) == ("stack", (6, 6, 6), ("a", "b", "c"))


def test_sequences_can_be_joined_and_stacked(tmp_path: Path) -> None:
    for new_axis, pattern in ((0, "concat"), (1, "stack")):
        d = Drawing()
        names = [d.input(name, B, S, 6) for name in "ab"]
        sequence = d.op("SequenceConstruct", *names)
        joined = d.op("ConcatFromSequence", sequence, axis=2, new_axis=new_axis)
        d.linear("site", d.reshape(joined, 0, -1, 12), 12, 4)
        (found,) = segments_of(d.facts(tmp_path), "site")
        assert (found.pattern, found.sizes, found.tensors) == (pattern, (6, 6), ("a", "b"))


def tokens(d: Drawing) -> str:
    return d.op("Concat", d.input("a", B, 7, 32), d.input("b", B, S, 32), axis=1)


def interleaved(d: Drawing) -> str:
    parts = [d.unsqueeze(d.input(name, B, S, 16), 3) for name in "ab"]
    return d.reshape(d.op("Concat", *parts, axis=3), 0, -1, 32)


def summed(d: Drawing) -> str:
    return d.op("Add", d.op("Concat", *pair(d), axis=-1), d.input("y", B, S, 32))


def of_unknown_length(d: Drawing) -> str:
    parts = [d.input("a", B, S, "m"), d.input("b", B, S, "n")]
    return d.op("Concat", *parts, axis=-1)


def behind_unknown(d: Drawing) -> str:
    joined = d.op("Concat", *pair(d), axis=-1)
    return d.op("Reshape", joined, d.op("Cast", d.input("shape", 3), to=7))


NEAR: dict[str, tuple[Callable[[Drawing], str], str]] = {
    "tokens": (tokens, "joins axis 1, not the contraction axis"),
    "tokens behind a norm": (lambda d: norm(d, tokens(d), "layer"), "joins axis 1"),
    "interleaved": (interleaved, "interleave"),
    "sum": (summed, "combined with another tensor by Add"),
    "unknown length": (of_unknown_length, "length of a joined part is unknown"),
    "computed reshape": (behind_unknown, "regroups the channels"),
}


@pytest.mark.parametrize("kind", list(NEAR))
def test_near_misses_say_why(kind: str, tmp_path: Path) -> None:
    drawing = Drawing()
    build, reason = NEAR[kind]
    drawing.linear("site", build(drawing), 48 if kind == "computed reshape" else 32, 4)
    facts = drawing.facts(tmp_path)
    assert segments_of(facts, "site") == []
    (rejection,) = facts.rejections
    assert rejection.site == "site"
    assert reason in rejection.reason
    assert rejection.nodes


def test_an_unknown_part_is_what_the_others_leave(tmp_path: Path) -> None:
    d = Drawing()
    joined = d.op("Concat", d.input("a", B, S, "n"), d.input("b", B, S, 24), axis=-1)
    d.linear("site", joined, 32, 4)
    (found,) = segments_of(d.facts(tmp_path), "site")
    assert found.sizes == (8, 24)


def test_an_interleaved_concat_inside_a_segment_leaves_the_outer_one(tmp_path: Path) -> None:
    d = Drawing()
    waves = d.op("Concat", d.input("s", "n", 4), d.input("c", "n", 4), axis=1)
    wide = d.reshape(waves, -1, 48)
    d.linear("site", d.op("Concat", d.input("pooled", B, 10), wide, axis=1), 58, 4)
    facts = d.facts(tmp_path)
    (found,) = segments_of(facts, "site")
    assert (found.sizes, found.tensors) == ((10, 48), ("pooled", wide))
    (reason,) = reasons(facts, "site")
    assert reason.startswith(f"inside the segment '{wide}'")


def test_sites_that_read_one_concat_have_the_same_segments(tmp_path: Path) -> None:
    d = Drawing()
    joined = d.op("Concat", *pair(d), axis=-1)
    for name in ("to_q", "to_k"):
        d.linear(name, joined, 32, 4)
    facts = d.facts(tmp_path)
    assert [(s.site, s.sizes) for s in facts.segments] == [("to_q", (8, 24)), ("to_k", (8, 24))]


def test_channels_of_patches_are_segments_of_whole_patches(tmp_path: Path) -> None:
    d = Drawing()
    image = d.op("Concat", d.input("latent", 2, 4, 8, 8), d.input("mask", 2, 1, 8, 8), axis=1)
    patches = d.op("Transpose", d.reshape(image, 2, 5, 4, 2, 4, 2), perm=[0, 2, 4, 1, 3, 5])
    d.linear("site", d.reshape(patches, 2, 16, 20), 20, 4)
    d.linear("deep", d.reshape(d.op("SpaceToDepth", image, blocksize=2), 2, 20, 16), 16, 3)
    (found,) = segments_of(d.facts(tmp_path), "site")
    assert found.sizes == (16, 4)
