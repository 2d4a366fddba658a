"""Symbolic lengths against the integers that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.graph.dims import Dim, Expr, exact, floor_divide, product, symbol

NAMES = ("batch", "height", "width")


def value(dim: Dim, lengths: dict[str, int]) -> int:
    """The length, with numbers for its symbols."""
    if isinstance(dim, int):
        return dim
    total = 0
    for atoms, factor in dim.terms:
        for atom in atoms:
            factor *= lengths[atom] if atom in lengths else value_of_formula(atom, lengths)
        total += factor
    return total


def value_of_formula(atom: str, lengths: dict[str, int]) -> int:
    """A floor, or a product too long to keep, as Python computes it: the atom is its formula."""
    return int(eval(atom.replace("floor", "").replace("/", "//"), {}, dict(lengths)))


lengths = st.fixed_dictionaries({name: st.integers(1, 50) for name in NAMES})
leaves = st.integers(-4, 9) | st.sampled_from(NAMES).map(symbol)
dims = st.recursive(
    leaves,
    lambda inner: st.tuples(inner, inner, st.sampled_from("+-*")).map(
        lambda t: {"+": t[0] + t[1], "-": t[0] - t[1], "*": t[0] * t[1]}[t[2]]
    ),
    max_leaves=6,
)


@given(dims, dims, lengths)
def test_arithmetic_is_that_of_the_lengths(left: Dim, right: Dim, known: dict[str, int]) -> None:
    a, b = value(left, known), value(right, known)
    assert value(left + right, known) == a + b
    assert value(left - right, known) == a - b
    assert value(left * right, known) == a * b


@given(dims, dims)
def test_what_is_multiplied_can_be_divided(left: Dim, right: Dim) -> None:
    whole = left * right
    if right != 0 and "(" not in str(whole):  # else too long, and kept as its formula
        assert exact(whole, right) == left


@given(dims, st.integers(2, 7), lengths)
def test_exact_quotients_times_the_divisor_are_the_dividend(
    dim: Dim, divisor: int, known: dict[str, int]
) -> None:
    found = exact(dim, divisor)
    if found is not None:
        assert value(found, known) * divisor == value(dim, known)
    assert found is None or found * divisor == dim


@given(dims, st.integers(1, 7), lengths)
def test_floors_are_those_of_the_lengths(dim: Dim, divisor: int, known: dict[str, int]) -> None:
    assert value(floor_divide(dim, divisor), known) == value(dim, known) // divisor


@given(st.lists(dims, max_size=4), lengths)
def test_products(parts: list[Dim], known: dict[str, int]) -> None:
    expected = 1
    for part in parts:
        expected *= value(part, known)
    assert value(product(parts), known) == expected


def test_products_too_long_to_keep_are_still_right() -> None:
    known = {"batch": 3, "height": 5, "width": 7}
    each = [symbol(name) + 1 for name in NAMES]
    long = product([*each, *each, *each, *each])
    assert value(long, known) == (4 * 6 * 8) ** 4


def test_equal_lengths_are_equal_however_they_were_computed() -> None:
    height, width = symbol("height"), symbol("width")
    assert height * width * 2 == 2 * width * height
    assert (height + 1) * (height - 1) == height * height - 1
    assert floor_divide(height - 1, 2) + 1 == floor_divide(height + 1, 2)
    assert exact(4 * height * width, 2 * height) == 2 * width
    assert exact(height, 2) is None
    assert exact(height, width) is None
    assert isinstance(height - height, int)
    assert str(2 * height * width + 3) == "3 + 2*height*width"
    assert isinstance(symbol("height"), Expr)
