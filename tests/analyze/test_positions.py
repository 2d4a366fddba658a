"""Positions of segments in random graphs, against what ONNX's reference computes.

Each producer is fed its own number; nodes only move elements, so the numbers that arrive in a
contraction channel tell who produces it.
"""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.analyze.graphs import Drawing, reasons, segments_of

LENGTHS = {"batch": 2, "tokens": 5}


class Walk:
    """Random movements of one tensor, its shape followed along."""

    def __init__(self, draw: st.DrawFn, drawing: Drawing, tensor: str, dims: list[int | str]):
        self.draw, self.drawing, self.tensor, self.dims = draw, drawing, tensor, dims

    def reshape(self, dims: list[int | str]) -> None:
        """Reshape; one symbolic length is -1, one at its old place 0."""
        wanted: list[int] = []
        for axis, dim in enumerate(dims):
            if isinstance(dim, int):
                wanted.append(dim)
            elif axis < len(self.dims) and self.dims[axis] == dim and self.draw(st.booleans()):
                wanted.append(0)
            else:
                wanted.append(-1)
        if wanted.count(-1) <= 1:
            self.tensor, self.dims = self.drawing.reshape(self.tensor, *wanted), dims

    def split_axis(self) -> None:
        places = [a for a, d in enumerate(self.dims) if isinstance(d, int) and d > 3]
        if not places:
            return
        axis = self.draw(st.sampled_from(places))
        length = self.dims[axis]
        assert isinstance(length, int)
        divisors = [d for d in range(2, length) if length % d == 0]
        if divisors:
            outer = self.draw(st.sampled_from(divisors))
            self.reshape([*self.dims[:axis], outer, length // outer, *self.dims[axis + 1 :]])

    def merge_axes(self) -> None:
        places = [
            a
            for a in range(len(self.dims) - 1)
            if isinstance(self.dims[a], int) and isinstance(self.dims[a + 1], int)
        ]
        if places and len(self.dims) > 3:
            axis = self.draw(st.sampled_from(places))
            left, right = self.dims[axis], self.dims[axis + 1]
            assert isinstance(left, int)
            assert isinstance(right, int)
            self.reshape([*self.dims[:axis], left * right, *self.dims[axis + 2 :]])

    def transpose(self) -> None:
        order = self.draw(st.permutations(range(len(self.dims))))
        self.tensor = self.drawing.op("Transpose", self.tensor, perm=list(order))
        self.dims = [self.dims[axis] for axis in order]

    def unsqueeze(self) -> None:
        axis = self.draw(st.integers(0, len(self.dims)))
        self.tensor = self.drawing.unsqueeze(self.tensor, axis)
        self.dims.insert(axis, 1)

    def change_values(self) -> None:
        self.tensor = self.drawing.op("Relu", self.tensor)

    def some_steps(self, most: int) -> None:
        steps = (self.split_axis, self.merge_axes, self.transpose, self.unsqueeze,
                 self.change_values)  # fmt: skip
        for _ in range(self.draw(st.integers(0, most))):
            self.draw(st.sampled_from(steps))()

    def end_in_channels(self) -> int:
        """Bring some known axes to the end and merge them; the number of channels."""
        known = [a for a, d in enumerate(self.dims) if isinstance(d, int)]
        count = self.draw(st.integers(1, len(known)))
        last = list(self.draw(st.permutations(known)))[:count]
        order = [a for a in range(len(self.dims)) if a not in last] + last
        self.tensor = self.drawing.op("Transpose", self.tensor, perm=order)
        self.dims = [self.dims[axis] for axis in order]
        channels = int(np.prod([d for d in self.dims[len(self.dims) - count :]]))
        self.reshape([*self.dims[: len(self.dims) - count], channels])
        return channels if self.dims[-1] == channels else 0


@st.composite
def joined_graphs(draw: st.DrawFn) -> tuple[Drawing, list[str], str, int, int]:
    """A site that reads several producers, joined and moved: its input, channels, joined axis."""
    drawing = Drawing()
    rest: list[int | str] = ["batch", "tokens", draw(st.sampled_from([2, 3, 4]))]
    axis = draw(st.integers(0, 3))
    count = draw(st.integers(2, 4))
    sizes = [draw(st.sampled_from([1, 2, 3, 4, 6])) for _ in range(count)]
    names = []
    for index, size in enumerate(sizes):
        names.append(drawing.input(f"x{index}", *rest[:axis], size, *rest[axis:]))
    parts = list(names)
    while len(parts) > 2 and draw(st.booleans()):  # nest two neighbours
        first = draw(st.integers(0, len(parts) - 2))
        parts[first : first + 2] = [drawing.op("Concat", *parts[first : first + 2], axis=axis)]
    joined = drawing.op("Concat", *parts, axis=axis)
    walk = Walk(draw, drawing, joined, [*rest[:axis], sum(sizes), *rest[axis:]])
    walk.some_steps(6)
    channels = walk.end_in_channels()
    if channels > 1:
        drawing.linear("site", walk.tensor, channels, 3)
    return drawing, names, walk.tensor, channels, axis


def runs_by_channel(values: np.ndarray) -> list[tuple[int, int]] | None:
    """(producer, channels) runs along the last axis; None where rows of a channel disagree."""
    rows = values.reshape(-1, values.shape[-1])
    if (rows != rows[0]).any():
        return None
    return [(int(key), len(list(group))) for key, group in groupby(rows[0])]


@settings(max_examples=150, deadline=None)
@given(joined_graphs())
def test_segments_are_where_the_reference_puts_them(
    graph: tuple[Drawing, list[str], str, int, int],
) -> None:
    drawing, names, tensor, channels, axis = graph
    if channels <= 1:
        return
    truth = runs_by_channel(numbered(drawing, {name: i for i, name in enumerate(names)}, tensor))
    whole = truth is not None and [key for key, _ in truth] == list(range(len(names)))
    with tempfile.TemporaryDirectory() as folder:
        facts = drawing.facts(Path(folder))
    joins = [e for e in segments_of(facts, "site") if e.pattern != "head_merge"]
    event("segments" if whole else "coarser segments" if joins else "rejected")
    if not joins and any("regroups" in reason for reason in reasons(facts, "site")):
        event("regrouped across a grid")  # 6 = 2 x 3 read as 3 x 2: no axes to speak of
    elif whole and (joins or in_order(drawing, axis, tensor, truth)):
        assert truth is not None
        assert [list(entry.sizes) for entry in joins] == [[size for _, size in truth]]
        assert joins[0].tensors == tuple(names)
    elif joins:  # an outer Concat is a segmentation where an inner one is none
        behind = {name: i for i, t in enumerate(joins[0].tensors) for name in makers(drawing, t)}
        assert set(behind) == set(names)
        coarse = runs_by_channel(numbered(drawing, behind, tensor))
        assert coarse == list(enumerate(joins[0].sizes))
    else:
        assert any(rejection.site == "site" for rejection in facts.rejections)


def in_order(drawing: Drawing, axis: int, tensor: str, runs: list[tuple[int, int]] | None) -> bool:
    """Whether each producer's slices arrive in their order; else being contiguous is a chance."""
    feeds = {}
    for name, dims in drawing.inputs.items():
        lengths = [LENGTHS.get(str(d), d) for d in dims]
        shape = [lengths[axis] if a == axis else 1 for a in range(len(lengths))]
        own = np.arange(lengths[axis], dtype=np.float32).reshape(shape)
        feeds[name] = np.broadcast_to(own, lengths).copy()
    values = drawing.run(feeds, tensor)[0]
    means = values.reshape(-1, values.shape[-1]).mean(axis=0)
    ends = np.cumsum([size for _, size in runs or ()])[:-1]
    return all((np.diff(part) >= 0).all() for part in np.split(means, ends))


def numbered(drawing: Drawing, numbers: dict[str, int], tensor: str) -> np.ndarray:
    """The tensor's values when each producer holds nothing but its number."""
    feeds = {
        name: np.full([LENGTHS.get(str(d), d) for d in dims], numbers[name], np.float32)
        for name, dims in drawing.inputs.items()
    }
    return drawing.run(feeds, tensor)[0]


def makers(drawing: Drawing, tensor: str) -> list[str]:
    """The graph inputs behind a Concat of Concats."""
    node = next((node for node in drawing.nodes if tensor in node.output), None)
    return [tensor] if node is None else [m for name in node.input for m in makers(drawing, name)]


@st.composite
def divided_graphs(draw: st.DrawFn) -> tuple[Drawing, int, list[str], int]:
    """A linear, movements of its output, and a division of one axis of the result."""
    drawing = Drawing()
    width = draw(st.sampled_from([4, 6, 8, 12, 24]))
    source = drawing.input("x", "batch", "tokens", 5)
    output = drawing.linear("site", source, 5, width, bias=draw(st.booleans()))
    walk = Walk(draw, drawing, output, ["batch", "tokens", width])
    walk.some_steps(5)
    known = [a for a, d in enumerate(walk.dims) if isinstance(d, int) and d > 1]
    axis = draw(st.sampled_from(known))
    length = walk.dims[axis]
    assert isinstance(length, int)
    cuts = sorted(draw(st.sets(st.integers(1, length - 1), min_size=1, max_size=3)))
    bounds = list(zip([0, *cuts], [*cuts, length], strict=True))
    kind = draw(st.sampled_from(("split", "slices", "gathers")))
    if kind == "split":
        parts = drawing.split(walk.tensor, *(b - a for a, b in bounds), axis=axis)
    elif kind == "slices":
        parts = [drawing.slice(walk.tensor, a, b, axis) for a, b in bounds]
    else:
        parts = [
            drawing.op(
                "Gather", walk.tensor, drawing.constant(list(range(a, b)), np.int64), axis=axis
            )
            for a, b in bounds
        ]
    drawing.outputs.append(output)
    return drawing, width, parts, axis


@settings(max_examples=150, deadline=None)
@given(divided_graphs())
def test_divisions_are_where_the_reference_puts_them(
    graph: tuple[Drawing, int, list[str], int],
) -> None:
    drawing, width, parts, axis = graph
    weight = next(name for name, array in drawing.constants.items() if array.shape == (5, width))
    drawing.constants[weight] = np.zeros((5, width), np.float32)
    biases = [
        n for n, a in drawing.constants.items() if a.shape == (width,) and a.dtype.kind == "f"
    ]
    numbers = np.arange(1, width + 1, dtype=np.float32)
    for bias in biases:
        drawing.constants[bias] = numbers
    if not biases:  # x is 1 in its first feature: the output's channels number themselves
        drawing.constants[weight][0] = numbers
    feed = np.zeros((2, 5, 5), np.float32)
    feed[..., 0] = 1
    values = drawing.run({"x": feed}, *parts)
    seen = [set(np.unique(part).astype(int) - 1) for part in values]
    contiguous = all(max(s) - min(s) + 1 == len(s) for s in seen)
    disjoint = sum(map(len, seen)) == width
    places = np.moveaxis(np.concatenate(values, axis=axis), axis, 0)
    ordered = bool((np.diff(places.reshape(len(places), -1).mean(axis=1)) >= 0).all())
    with tempfile.TemporaryDirectory() as folder:
        facts = drawing.facts(Path(folder))
    found = segments_of(facts, "site", "output")
    chance = contiguous and disjoint and not ordered  # channels changed places, none its part
    if not found and (chance or any("regroups" in reason for reason in reasons(facts, "site"))):
        event("contiguous by chance" if chance else "regrouped across a grid")
    elif contiguous and disjoint and ordered:
        event("segments")
        assert [list(entry.sizes) for entry in found] == [[len(s) for s in seen]]
        assert found[0].tensors == tuple(parts)
    else:
        event("rejected")
        assert not found
        assert any(rejection.site == "site" for rejection in facts.rejections)
