"""Every activation scheme: fit, codes and their decoding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import ActivationScheme, KeepFloat, Shifted, Symmetric
from segquant_trt.records.codec import from_plain, to_plain
from segquant_trt.records.options import RANGE_METHODS, RangeMethod
from segquant_trt.schemes import SCHEMES, ValueHistogram, encoding, fake_quantize, output_encoding
from segquant_trt.schemes.ranges import widened

FITTED = [scheme for scheme in SCHEMES if scheme.kind != "keep_float"]
finite = st.floats(-1e4, 1e4, width=32)


def histogram(values: np.ndarray) -> ValueHistogram:
    radius = 2.0 ** np.ceil(np.log2(max(np.abs(values).max(), 1e-6)))
    counts, _ = np.histogram(values, bins=2048, range=(-radius, radius))
    return ValueHistogram(
        low=float(values.min()), high=float(values.max()), radius=radius, counts=counts
    )


@pytest.mark.parametrize("scheme", FITTED, ids=lambda scheme: scheme.kind)
@given(low=finite, high=finite, share=st.floats(0, 1))
def test_error_inside_the_range_is_half_a_step(scheme, low, high, share) -> None:
    low, high = min(low, high), max(low, high)
    fitted = scheme.fit(histogram(np.array([low, high])), "amax")
    x = np.float32(low + share * (high - low))
    error = abs(float(x) - float(fake_quantize(x, fitted)))
    assert error <= 0.5 * fitted.scale * (1 + 1e-5) + 255 * fitted.scale * 2.0**-23


@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize("scheme", FITTED, ids=lambda scheme: scheme.kind)
@settings(max_examples=25)
@given(low=finite, high=finite)
def test_zero_decodes_to_zero(scheme, method: RangeMethod, low, high) -> None:
    fitted = scheme.fit(histogram(np.array([min(low, high), max(low, high)])), method)
    assert fake_quantize(np.zeros(1), fitted)[0] == 0.0


@given(scale=st.floats(2**-20, 2**10, width=32), seed=st.integers(0, 2**16))
def test_symmetric_equals_int8_codes(scale: float, seed: int) -> None:
    x = np.random.default_rng(seed).normal(0, 60 * scale, 300).astype(np.float32)
    signed = np.clip(np.rint(x / np.float32(scale)), -128, 127).astype(np.int8)
    stored = encoding(Symmetric(scale=scale), site="s")
    assert stored is not None
    assert stored.zero_point == 128
    np.testing.assert_array_equal(stored.quantize(x), (signed.astype(np.int16) + 128))
    np.testing.assert_array_equal(
        fake_quantize(x, Symmetric(scale=scale)), signed * np.float32(scale)
    )


@given(shift=st.integers(-127, 128), seed=st.integers(0, 2**16))
def test_shifted_follows_its_record(shift: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(shift * 0.1, 9, 300).astype(np.float32)
    codes = np.clip(np.rint(x / np.float32(0.1)) - shift, -128, 127)
    wanted = np.float32(0.1) * (codes + shift).astype(np.float32)
    np.testing.assert_array_equal(fake_quantize(x, Shifted(scale=0.1, zero_shift=shift)), wanted)


def test_equal_ranges_make_both_schemes_equal_up_to_the_step() -> None:
    seen = histogram(np.linspace(-3, 3, 1001))
    fits = {scheme.kind: scheme.fit(seen, "amax") for scheme in FITTED}
    assert fits["symmetric"].scale == pytest.approx(3 / 127, rel=1e-6)
    assert fits["shifted"].scale == pytest.approx(6 / 255, rel=1e-6)
    assert abs(fits["shifted"].zero_shift) <= 1


def test_shifted_beats_symmetric_after_silu() -> None:
    x = np.random.default_rng(0).normal(0, 2, 20000)
    x = (x / (1 + np.exp(-x))).astype(np.float32)
    noise = {
        scheme.kind: np.mean((x - fake_quantize(x, scheme.fit(histogram(x), "amax"))) ** 2)
        for scheme in FITTED
    }
    assert noise["shifted"] < 0.5 * noise["symmetric"]


@pytest.mark.parametrize("scheme", FITTED, ids=lambda scheme: scheme.kind)
def test_search_is_no_worse_than_amax_and_shrinks_on_outliers(scheme) -> None:
    x = np.random.default_rng(1).normal(0, 1, 500_000).astype(np.float32)
    x[0] = 30.0
    noise = {
        method: np.mean((x - fake_quantize(x, scheme.fit(histogram(x), method))) ** 2)
        for method in RANGE_METHODS
    }
    assert noise["mse"] < 0.8 * noise["amax"]
    assert (
        scheme.fit(histogram(x), "percentile").scale < 0.5 * scheme.fit(histogram(x), "amax").scale
    )


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.kind)
def test_scale_survives_yaml(scheme) -> None:
    import yaml

    fitted = scheme.fit(histogram(np.array([-0.1, 0.7])), "amax")
    again = from_plain(yaml.safe_load(yaml.safe_dump(to_plain(fitted))), type(fitted), origin="y")
    assert again == fitted
    if not isinstance(fitted, KeepFloat):
        assert np.float32(fitted.scale) == fitted.scale


@pytest.mark.parametrize(
    "scheme",
    [
        Symmetric(scale=0.0),
        Symmetric(scale=float("nan")),
        Symmetric(scale=-1.0),
        Shifted(scale=float("inf"), zero_shift=0),
        Shifted(scale=1.0, zero_shift=129),
        Shifted(scale=1.0, zero_shift=-128),
    ],
)
def test_impossible_codes_are_refused_by_site(scheme: ActivationScheme) -> None:
    with pytest.raises(SegQuantError, match=r"site 'block\.3'"):
        encoding(scheme, site="block.3")


def test_infinite_ranges_are_refused() -> None:
    seen = ValueHistogram(
        low=0.0, high=float("inf"), radius=1.0, counts=np.zeros(2048, dtype=np.int64)
    )
    with pytest.raises(SegQuantError, match="not a finite interval"):
        FITTED[0].fit(seen, "amax")


def test_nothing_seen_but_zero_still_has_a_scale() -> None:
    for scheme in FITTED:
        fitted = scheme.fit(histogram(np.zeros(3)), "mse")
        assert fitted.scale > 0.0
        assert fake_quantize(np.zeros(1), fitted)[0] == 0.0


def test_keep_float_has_no_codes() -> None:
    assert encoding(KeepFloat(), site="s") is None
    assert fake_quantize(np.array([0.123]), KeepFloat())[0] == np.float32(0.123)


@given(low=finite, high=finite)
def test_requantised_outputs_cover_their_range(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    found = output_encoding(low, high)
    ends = np.array([low, high], dtype=np.float32)
    error = np.abs(found.dequantize(found.quantize(ends)) - ends)
    assert (error <= found.scale * (0.5 + 1e-4)).all()


def test_widening_merges_pairs_around_zero() -> None:
    counts = np.arange(8, dtype=np.int64)
    assert widened(counts).tolist() == [0, 0, 0 + 1, 2 + 3, 4 + 5, 6 + 7, 0, 0]
