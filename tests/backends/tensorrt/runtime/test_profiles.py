"""The choice of a profile, against a search through all of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.backends.tensorrt.runtime.profiles import choose_profile
from segquant_trt.errors import SegQuantError
from segquant_trt.records.engine import ShapeProfile, ShapeRange


def profile(**bounds: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> ShapeProfile:
    return ShapeProfile(
        inputs=tuple(
            ShapeRange(name=name, minimum=low, optimum=usual, maximum=high)
            for name, (low, usual, high) in bounds.items()
        )
    )


SMALL = profile(x=((1, 64), (2, 64), (4, 64)), t=((1,), (1,), (4,)))
LARGE = profile(x=((2, 64), (16, 64), (32, 64)), t=((1,), (16,), (32,)))


def test_the_profile_tuned_nearest_is_chosen() -> None:
    assert choose_profile([SMALL, LARGE], {"x": (1, 64), "t": (1,)}) == 0
    assert choose_profile([SMALL, LARGE], {"x": (2, 64), "t": (1,)}) == 0
    assert choose_profile([SMALL, LARGE], {"x": (5, 64), "t": (5,)}) == 1
    assert choose_profile([LARGE, SMALL], {"x": (2, 64), "t": (2,)}) == 1
    assert choose_profile([SMALL, SMALL], {"x": (2, 64), "t": (1,)}) == 0


def test_lengths_of_zero_and_scalars() -> None:
    empty = profile(x=((0,), (0,), (8,)), s=((), (), ()))
    assert choose_profile([empty], {"x": (0,), "s": ()}) == 0


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"x": (33, 64), "t": (1,)}, "'x' has shape 33x64; .* 1x64 to 4x64 or 2x64 to 32x64"),
        ({"x": (1, 65), "t": (1,)}, "'x' has shape 1x65"),
        ({"x": (1, 64), "t": (33,)}, "'t' has shape 33; .* 1 to 4 or 1 to 32"),
        ({"x": (1, 64), "t": (5,)}, "no profile has them all: profile 0: x 1x64 to 4x64, t 1 to 4"),
    ],
)
def test_shapes_that_no_profile_has(shapes: dict[str, tuple[int, ...]], told: str) -> None:
    with pytest.raises(SegQuantError, match=told):
        choose_profile([SMALL, LARGE], shapes)


def test_a_fixed_shape_is_told_once() -> None:
    fixed = profile(x=((2, 3), (2, 3), (2, 3)))
    with pytest.raises(SegQuantError, match="this engine allows 2x3") as caught:
        choose_profile([fixed, fixed], {"x": (1, 3)})
    assert caught.value.what.endswith("2x3")


RANGES = st.tuples(st.integers(1, 40), st.integers(0, 20), st.integers(0, 20)).map(
    lambda t: ((t[0],), (t[0] + t[1],), (t[0] + t[1] + t[2],))
)


@given(
    st.lists(st.tuples(RANGES, RANGES), min_size=1, max_size=4),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_against_a_search(
    bounds: list[tuple[tuple[tuple[int, ...], ...], ...]], n: int, m: int
) -> None:
    profiles = [profile(x=each[0], t=each[1]) for each in bounds]  # type: ignore[arg-type]
    allowed = {
        index: abs(math.log(n / x[1][0])) + abs(math.log(m / t[1][0]))
        for index, (x, t) in enumerate(bounds)
        if x[0][0] <= n <= x[2][0] and t[0][0] <= m <= t[2][0]
    }
    if not allowed:
        with pytest.raises(SegQuantError):
            choose_profile(profiles, {"x": (n,), "t": (m,)})
        return
    chosen = choose_profile(profiles, {"x": (n,), "t": (m,)})
    assert allowed[chosen] == pytest.approx(min(allowed.values()))
