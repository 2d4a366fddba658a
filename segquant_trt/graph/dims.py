"""Axis lengths: integers, or polynomials in unknown lengths.

`Reshape` can only be followed when products of lengths can be compared and divided, so symbolic
lengths keep their arithmetic: `2 * (h * w)` over `h` is `2 * w`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, Union

_MOST_TERMS = 24

Monomial: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expr:
    """A polynomial that is no plain integer: sorted (atoms, coefficient) terms."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        merged = dict(self.terms)
        for atoms, factor in _terms(other):
            merged[atoms] = merged.get(atoms, 0) + factor
        return _polynomial(merged)

    def __mul__(self, other: Dim) -> Dim:
        product: dict[Monomial, int] = {}
        for atoms, factor in self.terms:
            for more, times in _terms(other):
                key = tuple(sorted(atoms + more))
                product[key] = product.get(key, 0) + factor * times
        if len(product) > _MOST_TERMS:
            return symbol(f"({self})*({other})")
        return _polynomial(product)

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: int) -> Dim:
        return self * -1 + other

    def __neg__(self) -> Dim:
        return self * -1

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(
            "*".join((*((str(factor),) if factor != 1 or not atoms else ()), *atoms))
            for atoms, factor in self.terms
        )


Dim: TypeAlias = Union[int, Expr]  # noqa: UP007 - a forward name, evaluated at run time


def symbol(name: str) -> Expr:
    """The unknown length called `name`."""
    return Expr((((name,), 1),))


def exact(dividend: Dim, divisor: Dim) -> Dim | None:
    """`dividend / divisor` when that is an integer polynomial, else None."""
    if dividend == divisor:
        return 1
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor if divisor and dividend % divisor == 0 else None
    lead, lead_factor = _terms(divisor)[-1]
    quotient: dict[Monomial, int] = {}
    rest = dividend
    for _ in range(_MOST_TERMS):
        if rest == 0:
            return _polynomial(quotient)
        atoms, factor = _terms(rest)[-1]
        share = _without(atoms, lead)
        if share is None or factor % lead_factor:
            return None
        quotient[share] = factor // lead_factor
        rest = rest - divisor * _polynomial({share: factor // lead_factor})
    return None


def floor_divide(dividend: Dim, divisor: Dim) -> Dim:
    """`dividend // divisor`, symbolic where it must be."""
    whole = exact(dividend, divisor)
    if whole is not None:
        return whole
    if isinstance(divisor, int) and divisor > 0:
        # (n q + r) // n = q + r // n: the whole part leaves the floor.
        inside: dict[Monomial, int] = {}
        outside: dict[Monomial, int] = {}
        for atoms, factor in _terms(dividend):
            outside[atoms], inside[atoms] = divmod(factor, divisor)
        rest = _polynomial(inside)
        if isinstance(rest, int):
            return _polynomial(outside) + rest // divisor
        return _polynomial(outside) + symbol(f"floor(({rest})/{divisor})")
    if isinstance(dividend, int) and isinstance(divisor, int):
        return symbol(f"floor({dividend}/{divisor})")
    return symbol(f"floor(({dividend})/({divisor}))")


def product(dims: Iterable[Dim]) -> Dim:
    """The product of lengths; 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, Expr) else (((), dim),)


def _polynomial(terms: Mapping[Monomial, int]) -> Dim:
    kept = tuple(sorted((_order(atoms), factor) for atoms, factor in terms.items() if factor))
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0][1]:
        return kept[0][1]
    return Expr(tuple((atoms, factor) for (_, atoms), factor in kept))


def _order(atoms: Monomial) -> tuple[int, Monomial]:
    return len(atoms), atoms


def _without(atoms: Monomial, removed: Monomial) -> Monomial | None:
    rest = list(atoms)
    for atom in removed:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)
