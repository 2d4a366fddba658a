"""float8 E4M3 against a list of its values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.records import Fp8
from segquant_trt.schemes import ValueHistogram, fake_quantize
from segquant_trt.schemes.fp8 import fit
from tests.schemes.activations import EPSILON, Float, inputs

# Sign apart: exponent bias 7, three mantissa bits, subnormals; exponent 15 and mantissa 7 is NaN.
VALUES = np.array(
    [
        mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
        for exponent in range(16)
        for mantissa in range(8)
    ][:-1]
)


def nearest(magnitude: float) -> float:
    """The nearest value; of two, the one whose last mantissa bit is zero."""
    distance = np.abs(VALUES - magnitude)
    candidates = np.flatnonzero(distance == distance.min())
    return float(VALUES[min(candidates, key=lambda index: index % 2)])


def test_largest_value() -> None:
    assert VALUES[-1] == 448.0
    assert len(VALUES) == 127


@given(x=st.floats(-600, 600, width=32))
def test_nearest_value_is_taken(x: float) -> None:
    found = float(fake_quantize(np.array([x]), Fp8(scale=1.0))[0])
    assert found == np.copysign(nearest(abs(x)), x)


def test_every_value_stays_and_every_tie_goes_to_even() -> None:
    scheme = Fp8(scale=1.0)
    np.testing.assert_array_equal(fake_quantize(VALUES, scheme), VALUES)
    ties = (VALUES[1:] + VALUES[:-1]) / 2
    np.testing.assert_array_equal(fake_quantize(ties, scheme), [nearest(tie) for tie in ties])
    np.testing.assert_array_equal(fake_quantize(-ties, scheme), [-nearest(tie) for tie in ties])


@pytest.mark.parametrize("x", [448.1, 464.0, 480.0, 1e30, np.inf])
def test_beyond_the_largest_it_saturates(x: float) -> None:
    both = np.array([x, -x], dtype=np.float32)
    assert fake_quantize(both, Fp8(scale=1.0)).tolist() == [448.0, -448.0]


@given(x=inputs())
def test_error_follows_the_value(x: Float) -> None:
    scheme = fit(ValueHistogram.of(x), "amax")
    error = np.abs(x.astype(np.float64) - fake_quantize(x, scheme))
    subnormal = scheme.scale * 2.0**-10
    assert (error <= np.maximum(np.abs(x) * (2.0**-4 + 8 * EPSILON), subnormal)).all()
