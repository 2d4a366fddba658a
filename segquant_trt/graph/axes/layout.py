"""Where the channels of one axis lie in another tensor.

Walking from an axis of some tensor upstream, its channels spread over several axes (heads and
head size), share one with other indices (channels times rows), or are a window of a longer axis.
A layout writes each axis of a tensor as a product of factors, outermost first; factors that carry
the traced channels are marked, and sorting the marks gives the order of the channels:

    [B, S, H*D]    (B) (S) (H D)*          * traced, here with the marks 0 and 1
    [B, H, S, D]   (B) (H)* (S) (D)*       the same channels before Transpose and Reshape
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from segquant_trt.graph.dims import Dim, exact, product

Mark: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """`extent` indices of an axis, of which `size` from `start` on are meant."""

    extent: Dim
    mark: Mark | None
    start: Dim = 0
    size: Dim = -1

    def __post_init__(self) -> None:
        if self.size == -1:
            object.__setattr__(self, "size", self.extent)

    @property
    def full(self) -> bool:
        """Whether all indices are meant."""
        return self.size == self.extent


Axis: TypeAlias = tuple[Factor, ...]
Layout: TypeAlias = tuple[Axis, ...]


def traced_axis(shape: Sequence[Dim], axis: int) -> Layout:
    """The layout of a tensor one whole axis of which is traced."""
    return tuple(
        () if dim == 1 else (Factor(dim, (0,) if index == axis else None),)
        for index, dim in enumerate(shape)
    )


def plain_axis(dim: Dim) -> Axis:
    """An axis that carries none of the traced channels."""
    return () if dim == 1 else (Factor(dim, None),)


def is_marked(axis: Axis) -> bool:
    """Whether the axis carries traced channels."""
    return any(factor.mark is not None for factor in axis)


def marked(layout: Layout) -> list[tuple[int, Factor]]:
    """(axis, factor) of every marked factor, in the order of the channels."""
    found = [
        (axis, factor)
        for axis, factors in enumerate(layout)
        for factor in factors
        if factor.mark is not None
    ]
    return sorted(found, key=lambda item: item[1].mark or ())


def normalized(layout: Layout) -> Layout:
    """The layout with neighbours that stayed together merged into one factor."""
    ranks = {
        factor.mark: index for index, factor in enumerate(factor for _, factor in marked(layout))
    }
    return tuple(_merged(axis, ranks) for axis in layout)


def _merged(axis: Axis, ranks: dict[Mark | None, int]) -> Axis:
    kept: list[Factor] = []
    for factor in axis:
        if factor.extent == 1:
            continue
        before = kept[-1] if kept else None
        if before is not None and factor.full and _adjacent(before, factor, ranks):
            kept[-1] = Factor(
                before.extent * factor.extent,
                before.mark,
                before.start * factor.extent,
                before.size * factor.extent,
            )
        else:
            kept.append(factor)
    return tuple(kept)


def _adjacent(outer: Factor, inner: Factor, ranks: dict[Mark | None, int]) -> bool:
    if outer.mark is None or inner.mark is None:
        return outer.mark is None and inner.mark is None
    return ranks[inner.mark] == ranks[outer.mark] + 1


def windowed(axis: Axis, start: Dim, extent: Dim) -> Axis | None:
    """The axis before a slice that began at `start` of `extent` indices; None when it is torn."""
    if not axis:
        return () if extent == 1 else (Factor(extent, None, start, 1),)
    outer, *inner = axis
    step = product(factor.extent for factor in inner)
    first, whole = exact(start, step) if start != 0 else 0, exact(extent, step)
    if first is None or whole is None:
        return None
    return (Factor(whole, outer.mark, first + outer.start, outer.size), *inner)


def regrouped(layout: Iterable[Axis], dims: Sequence[Dim]) -> Layout | None:
    """The layout of a reshape's operand of shape `dims`; None when marked channels are lost.

    Factors are dealt out to the axes from the left, then from the right; what is left in the
    middle cannot be matched and must not be marked.
    """
    pending = deque(factor for axis in layout for factor in axis if factor.extent != 1)
    axes: list[list[Factor]] = [[] for _ in dims]
    open_axes = deque((index, dim) for index, dim in enumerate(dims) if dim != 1)
    _deal(pending, open_axes, axes)
    if pending or open_axes:
        rights: list[list[Factor]] = [[] for _ in dims]
        _deal_from_right(pending, open_axes, rights)
        _deal(pending, open_axes, axes)
        if any(factor.mark is not None for factor in pending):
            return None
        for index, rest in open_axes:
            axes[index].append(Factor(rest, None))
        for axis, right in zip(axes, rights, strict=True):
            axis.extend(right)
    return normalized(tuple(tuple(axis) for axis in axes))


def _deal(
    pending: deque[Factor], open_axes: deque[tuple[int, Dim]], axes: list[list[Factor]]
) -> None:
    while pending and open_axes:
        index, rest = open_axes[0]
        factor = pending[0]
        if len(open_axes) == 1:
            axes[index].extend(pending)
            pending.clear()
            open_axes.clear()
        elif (left := exact(rest, factor.extent)) is not None:
            axes[index].append(pending.popleft())
            open_axes.popleft()
            if left != 1:
                open_axes.appendleft((index, left))
        elif (parts := _split(factor, rest)) is not None:
            axes[index].append(parts[0])
            pending[0] = parts[1]
            open_axes.popleft()
        elif len(pending) == 1 and factor.full:
            # One factor covers all that is left: it is their product, provably or not.
            for count, (place, dim) in enumerate(open_axes):
                mark = None if factor.mark is None else (*factor.mark, count)
                axes[place].append(Factor(dim, mark))
            pending.clear()
            open_axes.clear()
        else:
            return


def _deal_from_right(
    pending: deque[Factor], open_axes: deque[tuple[int, Dim]], axes: list[list[Factor]]
) -> None:
    while pending and open_axes:
        index, rest = open_axes[-1]
        factor = pending[-1]
        if len(open_axes) == 1:
            axes[index][:0] = pending
            pending.clear()
            open_axes.clear()
        elif (left := exact(rest, factor.extent)) is not None:
            axes[index].insert(0, pending.pop())
            open_axes.pop()
            if left != 1:
                open_axes.append((index, left))
        elif (outer := exact(factor.extent, rest)) is not None and (
            parts := _split(factor, outer)
        ) is not None:
            axes[index].insert(0, parts[1])
            pending[-1] = parts[0]
            open_axes.pop()
        else:
            return


def _split(factor: Factor, outer: Dim) -> tuple[Factor, Factor] | None:
    """The factor as `outer` times the rest; a window must fit the grid."""
    inner = exact(factor.extent, outer)
    if inner is None:
        return None
    first = (None, None) if factor.mark is None else ((*factor.mark, 0), (*factor.mark, 1))
    if factor.full:
        return Factor(outer, first[0]), Factor(inner, first[1])
    start, size = exact(factor.start, inner) if factor.start != 0 else 0, exact(factor.size, inner)
    if start is not None and size is not None:
        return Factor(outer, first[0], start, size), Factor(inner, first[1])
    if all(isinstance(value, int) for value in (factor.start, factor.size, inner)):
        return _inside_one(factor, outer, inner, first)
    return None


def _inside_one(
    factor: Factor, outer: Dim, inner: Dim, marks: tuple[Mark | None, Mark | None]
) -> tuple[Factor, Factor] | None:
    assert isinstance(factor.start, int)
    assert isinstance(factor.size, int)
    assert isinstance(inner, int)
    row, column = divmod(factor.start, inner)
    if column + factor.size > inner:
        return None
    return Factor(outer, None, row, 1), replace(
        Factor(inner, marks[1]), start=column, size=factor.size
    )
