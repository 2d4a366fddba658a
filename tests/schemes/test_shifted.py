"""Shifted codes, and their correction where a target knows no zero points."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.records import PerToken, Shifted, WeightPlan
from segquant_trt.schemes import ValueHistogram, fake_quantize, planes, quantize_weight, row_factor
from segquant_trt.schemes.shifted import correction, fit, padded_correction, signed_codes
from tests.schemes.activations import Float, assert_product, inputs, rows_of, silu


@given(shift=st.integers(-127, 128), seed=st.integers(0, 2**16))
def test_shifted_follows_its_record(shift: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(shift * 0.1, 9, 300).astype(np.float32)
    codes = np.clip(np.rint(x / np.float32(0.1)) - shift, -128, 127)
    scheme = Shifted(scale=0.1, zero_shift=shift)
    wanted = np.float32(0.1) * (codes + shift).astype(np.float32)
    np.testing.assert_array_equal(fake_quantize(x, scheme), wanted)
    np.testing.assert_array_equal(signed_codes(x, scheme), codes)


@given(x=inputs(), seed=st.integers(0, 2**16))
def test_correction_equals_the_zero_point(x: Float, seed: int) -> None:
    """`s q W + c colsum` against `s (u - z) W` with uint8 codes and a zero point."""
    scheme = fit(ValueHistogram.of(x), "amax")
    weight = quantize_weight(rows_of("normal", seed, (5, x.shape[1])), WeightPlan())
    rows = weight.dequantize().astype(np.float64)
    plane = planes(scheme, site="s")[0]
    native = plane.scale * (plane.quantize(x).astype(np.float64) - plane.zero_point)
    found = scheme.scale * (signed_codes(x, scheme) @ rows.T) + correction(scheme, weight)
    assert_product(found, native @ rows.T, np.full_like(native, 256 * scheme.scale), rows)


@given(x=inputs(kinds=("silu", "normal", "one_outlier", "negative")), seed=st.integers(0, 2**16))
def test_row_factors_multiply_the_correction_and_not_the_bias(x: Float, seed: int) -> None:
    bias = rows_of("normal", seed + 1, (1, 5))[0]
    weight = quantize_weight(rows_of("normal", seed, (5, x.shape[1])), WeightPlan())
    rows = weight.dequantize().astype(np.float64)
    factor = row_factor(x, PerToken())
    scheme = fit(ValueHistogram.of(x / factor), "amax")
    wanted = factor * (fake_quantize(x / factor, scheme) @ rows.T) + bias
    codes = signed_codes(x / factor, scheme)
    found = factor * (scheme.scale * (codes @ rows.T) + correction(scheme, weight)) + bias
    assert_product(found, wanted, factor * np.full_like(x, 256 * scheme.scale), rows)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**16), shift=st.integers(-127, 128), stride=st.sampled_from([1, 2]))
def test_padded_convolutions_see_zero_at_the_border(seed: int, shift: int, stride: int) -> None:
    """A direct convolution with zero padding of the decoded image, against three integer forms."""
    image = silu(2 * rows_of("normal", seed, (3, 35))).reshape(3, 5, 7)
    scheme = Shifted(scale=0.03, zero_shift=shift)
    kernels = rows_of("normal", seed + 1, (4, 27))
    weight = quantize_weight(kernels, WeightPlan())
    rows = weight.dequantize()

    def patches(padded: Float) -> Float:
        height, width = (padded.shape[1] - 3) // stride + 1, (padded.shape[2] - 3) // stride + 1
        return np.stack(
            [
                padded[:, stride * i : stride * i + 3, stride * j : stride * j + 3].ravel()
                for i in range(height)
                for j in range(width)
            ]
        )

    border = ((0, 0), (1, 1), (1, 1))
    decoded = patches(np.pad(fake_quantize(image, scheme), border))
    wanted = decoded @ rows.T
    size = np.full_like(decoded, 256 * scheme.scale)
    # The graph pads before it subtracts: the border is coded like any zero.
    before = signed_codes(patches(np.pad(image, border)), scheme).astype(np.float64)
    found = scheme.scale * (before @ rows.T) + correction(scheme, weight)
    assert_product(found, wanted, size, rows)
    # The convolution pads its codes with the code of zero.
    codes = signed_codes(image, scheme).astype(np.float64)
    zero = float(np.clip(-shift, -128, 127))
    assert zero == -shift
    coded = patches(np.pad(codes, border, constant_values=zero))
    np.testing.assert_array_equal(coded, before)
    # It pads them with code zero, which stands for the shift: the border is left uncorrected.
    padded = patches(np.pad(codes, border))
    inside = patches(np.pad(np.ones_like(image), border)).astype(bool)
    found = scheme.scale * (padded @ rows.T) + padded_correction(scheme, weight, inside)
    assert_product(found, wanted, size, rows)
    naive = scheme.scale * (padded @ rows.T) + correction(scheme, weight)
    if abs(shift) > 8:
        assert np.abs(naive - wanted).max() > 100 * np.abs(found - wanted).max()


def test_correction_needs_the_coded_weight() -> None:
    """With the float weight's sum in its place the weight's error is multiplied by the shift."""
    x = rows_of("silu", 0, (64, 257)) + np.float32(4.0)
    rows = rows_of("normal", 1, (16, 257))
    weight = quantize_weight(rows, WeightPlan(bits=4))
    scheme = fit(ValueHistogram.of(x, low=1.0), "amax")
    codes = scheme.scale * (signed_codes(x, scheme).astype(np.float32) @ weight.dequantize().T)
    right = codes + correction(scheme, weight)
    wrong = codes + scheme.scale * scheme.zero_shift * rows.sum(axis=1)
    wanted = fake_quantize(x, scheme) @ weight.dequantize().T
    assert np.abs(right - wanted).max() < 1e-4 * np.abs(wrong - wanted).max()
