"""Nine-bit codes, and their products in the 2:4 pattern of sparse tensor cores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.records import SignMagnitude, SparseDual, WeightPlan
from segquant_trt.schemes import ValueHistogram, fake_quantize, quantize_weight, sparse_dual
from segquant_trt.schemes.sign_magnitude import fit as fit_magnitude
from segquant_trt.schemes.sparse import (
    MAX_COLUMNS,
    SparseCodes,
    decode,
    encode,
    expanded,
    interleaved_weight,
    lane_words,
    negative_sum,
    places,
    product,
)
from tests.schemes.activations import EPSILON, Float, assert_product, inputs, rows_of

schemes = st.sampled_from(
    [SignMagnitude(scale=0.01), *(SparseDual(scale=0.02, ratio=ratio) for ratio in (1, 2, 5, 8))]
)
weights = st.builds(
    lambda seed: np.random.default_rng(seed).integers(-127, 128, (6, 1025)).astype(np.int8),
    st.integers(0, 2**16),
)


def levels_below(x: Float, scheme: SignMagnitude | SparseDual) -> Float:
    ratio = scheme.ratio if isinstance(scheme, SparseDual) else 1
    return levels(-x, np.float32(scheme.scale) / np.float32(ratio))


def levels(x: Float, step: float) -> Float:
    step = np.float32(step)
    return np.rint(np.clip(x, 0, 300 * step) / step).clip(0, 255)


def half_codes(codes: np.ndarray, scheme: SignMagnitude | SparseDual) -> np.ndarray:
    """Round half to even by integer arithmetic."""
    ratio = scheme.ratio if isinstance(scheme, SparseDual) else 1
    whole, rest = np.divmod(codes.astype(np.int64), ratio)
    return whole + ((2 * rest > ratio) | ((2 * rest == ratio) & (whole % 2 == 1)))


@given(x=inputs())
def test_magnitude_and_sign(x: Float) -> None:
    scheme = fit_magnitude(ValueHistogram.of(x), "amax")
    wanted = np.minimum(np.rint(np.abs(x) / np.float32(scheme.scale)), 255)
    np.testing.assert_array_equal(
        fake_quantize(x, scheme), np.sign(x) * wanted * np.float32(scheme.scale)
    )
    if np.abs(x).max() > 1e-35:
        assert wanted.max() == 255


@given(x=inputs(), scheme=schemes)
def test_sparse_codes_decode_to_the_scheme(x: Float, scheme: SignMagnitude | SparseDual) -> None:
    codes = encode(x, scheme)
    assert codes.magnitudes.shape[1] % 16 == 0
    assert codes.words.shape == (len(x), codes.magnitudes.shape[1] // 16)
    assert codes.words.dtype == np.uint32
    np.testing.assert_array_equal(decode(codes, scheme, x.shape[1]), fake_quantize(x, scheme))


@given(x=inputs(), scheme=schemes, multiple=st.sampled_from([16, 32, 64]))
def test_metadata_is_the_sign_and_always_valid(
    x: Float, scheme: SignMagnitude | SparseDual, multiple: int
) -> None:
    codes = encode(x, scheme, multiple=multiple)
    assert codes.magnitudes.shape[1] - x.shape[1] in range(multiple)
    for row in range(len(x)):
        for group in range(codes.magnitudes.shape[1] // 2):
            nibble = int(codes.words[row, group // 8]) >> (4 * (group % 8)) & 0xF
            assert (nibble & 3) < (nibble >> 2), "the hardware needs ascending places"
    signs = np.pad(x < 0, ((0, 0), (0, codes.magnitudes.shape[1] - x.shape[1])))
    parity = 2 * (np.arange(codes.magnitudes.shape[1]) % 2)
    np.testing.assert_array_equal(places(codes), parity + signs)
    assert not codes.magnitudes[:, x.shape[1] :].any()


@given(x=inputs(), scheme=schemes)
def test_logical_operand_interleaves_the_polarities(
    x: Float, scheme: SignMagnitude | SparseDual
) -> None:
    dense = expanded(encode(x, scheme))
    above = levels(x, scheme.scale)
    below = levels_below(x, scheme)
    width = 2 * x.shape[1]
    np.testing.assert_array_equal(dense[:, 0:width:2], above)
    np.testing.assert_array_equal(dense[:, 1:width:2], below)
    assert not dense[:, width:].any()
    assert (np.count_nonzero(dense.reshape(len(x), -1, 4), axis=2) <= 2).all()


@given(x=inputs(), scheme=schemes, codes=weights)
def test_sparse_product_is_the_dense_one_in_integers(
    x: Float, scheme: SignMagnitude | SparseDual, codes: np.ndarray
) -> None:
    codes = codes[:, : x.shape[1]]
    ratio = scheme.ratio if isinstance(scheme, SparseDual) else 1
    above = levels(x, scheme.scale).astype(np.int64)
    below = levels_below(x, scheme).astype(np.int64)
    wanted = above @ codes.T.astype(np.int64) - below @ half_codes(codes, scheme).T
    operand = interleaved_weight(codes, ratio=ratio)
    found = product(encode(x, scheme), operand)
    np.testing.assert_array_equal(found, wanted)
    if isinstance(scheme, SignMagnitude):
        signed = np.where(x < 0, -below, above)
        np.testing.assert_array_equal(found, signed @ codes.T.astype(np.int64))


@given(x=inputs(), codes=weights)
def test_complement_with_repair_is_the_negation(x: Float, codes: np.ndarray) -> None:
    codes = codes[:, : x.shape[1]]
    compressed = encode(x, SignMagnitude(scale=0.01))
    operand = interleaved_weight(codes)
    flipped = operand.copy()
    flipped[:, 1::2] = ~operand[:, 0::2]
    found = product(compressed, flipped) + negative_sum(compressed)[:, None]
    np.testing.assert_array_equal(found, product(compressed, operand))


def test_weight_operand_of_odd_width() -> None:
    found = interleaved_weight(np.array([[3, -127, 5]], dtype=np.int8), ratio=2)
    assert found.shape == (1, 32)
    assert found[0, :7].tolist() == [3, -2, -127, 64, 5, -2, 0]
    with pytest.raises(AssertionError):
        interleaved_weight(np.array([[-128]], dtype=np.int8))


def test_accumulators_hold_the_widest_product() -> None:
    assert MAX_COLUMNS * 255 * 127 <= 2**31 - 1 < (MAX_COLUMNS + 1) * 255 * 127


def test_lanes_hold_the_words_that_the_instruction_reads() -> None:
    """The PTX table for 8-bit `m16n8k64`, selector 0: row and first column of each lane's word."""
    words = np.random.default_rng(0).integers(0, 2**32, (48, 6), dtype=np.uint32)
    found = lane_words(words)
    assert found.shape == (3, 3, 32)
    for row_tile in range(3):
        for column_tile in range(3):
            for lane in range(32):
                row = 16 * row_tile + (lane >> 2) + 8 * (lane & 1)
                word = 2 * column_tile + ((lane >> 1) & 1)
                assert found[row_tile, column_tile, lane] == words[row, word]


def test_hand_made_word() -> None:
    x = np.array([[1.0, -1.0, -2.0, 0.0]], dtype=np.float32)
    codes = encode(x, SignMagnitude(scale=1.0))
    assert codes.magnitudes[0, :4].tolist() == [1, 1, 2, 0]
    # Places 0 and 3, then 1 and 2: nibbles 0b1100, 0b1001.
    assert hex(codes.words[0, 0]) == "0x8888889c"
    assert expanded(codes)[0, :8].tolist() == [1, 0, 0, 1, 0, 2, 0, 0]


def test_metadata_decides_not_the_order_of_columns() -> None:
    codes = SparseCodes(
        magnitudes=np.array([[7] * 16], dtype=np.uint8),
        words=np.array([[0x8888888D]], dtype=np.uint32),
    )
    assert expanded(codes)[0, :4].tolist() == [0, 7, 0, 7]


@given(x=inputs(), ratio=st.integers(1, 8), seed=st.integers(0, 2**16))
def test_sparse_dual_is_what_one_accumulator_gives(x: Float, ratio: int, seed: int) -> None:
    scheme = sparse_dual.fit_ratio(ValueHistogram.of(x), "amax", ratio)
    weight = quantize_weight(rows_of("normal", seed, (4, x.shape[1])), WeightPlan())
    accumulator = product(encode(x, scheme), interleaved_weight(weight.codes, ratio=ratio))
    wanted = scheme.scale * accumulator * weight.scale.astype(np.float64)
    pairs = sparse_dual.operands(x, scheme, weight)
    found = sum(a @ rows.T for a, rows in pairs)
    # `round(codes / ratio) * ratio` is up to half a ratio more than the codes.
    bound = np.abs(weight.dequantize()) + ratio * weight.scale[:, None]
    assert_product(found, wanted, fake_quantize(x, scheme), bound)


@given(x=inputs(kinds=("silu", "normal", "one_outlier", "negative")), ratio=st.integers(1, 8))
def test_sparse_dual_covers_both_polarities(x: Float, ratio: int) -> None:
    scheme = sparse_dual.fit_ratio(ValueHistogram.of(x), "amax", ratio)
    wanted = max(max(x.max(), 0) / 255, max(-x.min(), 0) / 255 * ratio)
    assert scheme.scale == pytest.approx(wanted, rel=4 * EPSILON)


@pytest.mark.parametrize("ratio", [1, 3, 8])
def test_searched_scale_of_a_ratio_is_near_the_best(ratio: int) -> None:
    x = rows_of("normal", 0, (400, 1025))
    x[x < 0] /= 4
    x[0, 0], x[1, 1] = 30.0, -30.0 / ratio

    def error(scale: float) -> float:
        found = fake_quantize(x, SparseDual(scale=scale, ratio=ratio))
        return float(np.sum((x - found) ** 2))

    seen = ValueHistogram.of(x)
    searched = error(sparse_dual.fit_ratio(seen, "mse", ratio).scale)
    widest = sparse_dual.fit_ratio(seen, "amax", ratio).scale
    assert searched <= 1.03 * min(error(widest * r) for r in np.geomspace(1 / 64, 1, 120))
    assert searched < 0.8 * error(widest)


def test_ratio_is_chosen_by_measured_output_error() -> None:
    """Every ratio's output error by the integer product of its own operands."""
    x = rows_of("silu", 3, (64, 257))
    rows = rows_of("normal", 4, (16, 257))
    wanted = x @ rows.T
    weight = quantize_weight(rows, WeightPlan())
    seen = ValueHistogram.of(x)
    errors = {}
    for ratio in range(1, 9):
        scheme = sparse_dual.fit_ratio(seen, "amax", ratio)
        accumulator = product(encode(x, scheme), interleaved_weight(weight.codes, ratio=ratio))
        errors[ratio] = np.sum((scheme.scale * accumulator * weight.scale - wanted) ** 2)
    best = min(errors, key=errors.__getitem__)
    assert 1 < best < 8
    measured = sparse_dual.fit_measured(seen, "amax", x=x, weight=weight, wanted=wanted)
    assert measured == sparse_dual.fit_ratio(seen, "amax", best)
    # Without a weight the estimate is for normal ones, as here.
    assert errors[sparse_dual.fit(seen, "amax").ratio] <= 1.1 * errors[best]


@pytest.mark.parametrize("method", ["amax", "percentile", "mse"])
def test_even_polarities_want_no_ratio(method) -> None:
    x = rows_of("normal", 3, (64, 257))
    assert sparse_dual.fit(ValueHistogram.of(x), method).ratio == 1


@settings(max_examples=20)
@given(ratio=st.integers(1, 8), seed=st.integers(0, 2**16))
def test_divided_codes_round_half_to_even(ratio: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(-127, 128, (3, 400)).astype(np.int8)
    found = sparse_dual.divided_codes(codes, ratio)
    np.testing.assert_array_equal(found, half_codes(codes, SparseDual(scale=1.0, ratio=ratio)))
