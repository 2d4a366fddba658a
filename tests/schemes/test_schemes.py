"""What holds for every activation scheme: fit, codes and their decoding."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    Fp8,
    KeepFloat,
    Shifted,
    SignMagnitude,
    SparseDual,
    Symmetric,
)
from segquant_trt.records.codec import from_plain, to_plain
from segquant_trt.records.options import RANGE_METHODS, RangeMethod
from segquant_trt.schemes import (
    SCHEMES,
    Scheme,
    ValueHistogram,
    encoding,
    fake_quantize,
    output_encoding,
    planes,
)
from tests.schemes.activations import EPSILON, KINDS, Float, inputs, rows_of

FITTED = [scheme for scheme in SCHEMES if scheme.kind != "keep_float"]
INTEGER = [scheme for scheme in FITTED if scheme.kind != "fp8"]
TWO_PLANES = (DualScale(positive_scale=0.02, negative_scale=0.1),
              DualFull(positive_scale=0.02, negative_scale=0.1))  # fmt: skip
NO_PLANES = (SignMagnitude(scale=0.1), SparseDual(scale=0.1, ratio=3), Fp8(scale=0.1))
every = pytest.mark.parametrize("scheme", FITTED, ids=lambda scheme: scheme.kind)
finite = st.floats(-1e4, 1e4, width=32)


def steps(x: Float, fitted: ActivationScheme) -> Float:
    """The distance between neighbouring levels at each value."""
    match fitted:
        case DualScale() | DualFull():
            return np.where(x < 0, fitted.negative_scale, fitted.positive_scale)
        case SparseDual():
            return np.where(x < 0, fitted.scale / fitted.ratio, fitted.scale)
        case Symmetric() | Shifted() | SignMagnitude():
            return np.full(x.shape, fitted.scale)
    raise AssertionError(fitted)


def scales(fitted: ActivationScheme) -> list[float]:
    fields = to_plain(fitted)
    return [value for name, value in fields.items() if name.endswith("scale")]


@pytest.mark.parametrize("scheme", INTEGER, ids=lambda scheme: scheme.kind)
@given(x=inputs())
def test_error_inside_the_range_is_half_a_step(scheme: Scheme, x: Float) -> None:
    fitted = scheme.fit(ValueHistogram.of(x), "amax")
    error = np.abs(x.astype(np.float64) - fake_quantize(x, fitted))
    assert (error <= 0.5 * steps(x, fitted) + 8 * EPSILON * np.abs(x)).all()


@pytest.mark.parametrize("method", RANGE_METHODS)
@every
@settings(max_examples=25)
@given(low=finite, high=finite)
def test_zero_decodes_to_zero(scheme: Scheme, method: RangeMethod, low: float, high: float) -> None:
    fitted = scheme.fit(ValueHistogram.of(np.array([low, high])), method)
    assert fake_quantize(np.zeros(1), fitted)[0] == 0.0


@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize("kind", KINDS)
@every
def test_scales_are_usable_whatever_was_seen(
    scheme: Scheme, kind: str, method: RangeMethod
) -> None:
    x = rows_of(kind, 5, (9, 17))
    fitted = scheme.fit(ValueHistogram.of(x), method)
    for scale in scales(fitted):
        assert np.float32(scale) == scale
        assert np.finfo(np.float32).tiny <= scale < np.inf
    unseen = np.array([-1e30, -1.0, 0.0, 1.0, 1e30], dtype=np.float32)
    decoded = fake_quantize(unseen, fitted)
    assert np.isfinite(decoded).all()
    assert (np.diff(decoded) >= 0.0).all()


@every
@given(x=inputs(kinds=("silu", "one_outlier", "normal")), seed=st.integers(0, 99))
def test_beyond_the_range_codes_saturate(scheme: Scheme, x: Float, seed: int) -> None:
    """Far outside, the value is the last level, which is no further in than what was seen."""
    fitted = scheme.fit(ValueHistogram.of(x), "amax")
    far = np.random.default_rng(seed).uniform(2.0, 1e6, 7).astype(np.float32)
    highest, lowest = fake_quantize(far * 1e4, fitted), fake_quantize(-far * 1e4, fitted)
    assert len(set(highest.tolist())) == len(set(lowest.tolist())) == 1
    step = max(scales(fitted))
    assert highest[0] >= x.max() - step
    assert lowest[0] <= x.min() + step


@pytest.mark.parametrize("scheme", [Symmetric(scale=0.1), *TWO_PLANES, *NO_PLANES])
@given(x=inputs())
def test_decoded_values_are_fixed_points(scheme: ActivationScheme, x: Float) -> None:
    once = fake_quantize(x, scheme)
    np.testing.assert_array_equal(fake_quantize(once, scheme), once)


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


def test_equal_ranges_make_schemes_equal_up_to_the_step() -> None:
    seen = ValueHistogram.of(np.linspace(-3, 3, 1001))
    fits = {scheme.kind: scheme.fit(seen, "amax") for scheme in FITTED}
    assert fits["symmetric"].scale == pytest.approx(3 / 127, rel=1e-6)
    assert fits["shifted"].scale == pytest.approx(6 / 255, rel=1e-6)
    assert abs(fits["shifted"].zero_shift) <= 1
    assert scales(fits["dual_scale"]) == pytest.approx([3 / 127] * 2, rel=1e-6)
    assert scales(fits["dual_full"]) == pytest.approx([3 / 255] * 2, rel=1e-6)
    assert fits["sign_magnitude"].scale == pytest.approx(3 / 255, rel=1e-6)
    assert fits["sparse_dual"] == SparseDual(scale=fits["sign_magnitude"].scale, ratio=1)
    assert fits["fp8"].scale == pytest.approx(3 / 448, rel=1e-6)


def test_noise_after_silu_falls_from_scheme_to_scheme() -> None:
    x = rows_of("silu", 0, (20, 1025))
    noise = {
        scheme.kind: np.mean((x - fake_quantize(x, scheme.fit(ValueHistogram.of(x), "amax"))) ** 2)
        for scheme in FITTED
    }
    assert noise["shifted"] < 0.5 * noise["symmetric"]
    assert noise["dual_scale"] < 0.5 * noise["symmetric"]
    # Half the step is a quarter of the noise where values are spread evenly over a step.
    assert noise["dual_full"] == pytest.approx(noise["dual_scale"] / 4, rel=0.2)
    assert noise["sign_magnitude"] == pytest.approx(noise["symmetric"] / 4, rel=0.2)


@every
def test_search_is_no_worse_than_amax_and_shrinks_on_outliers(scheme: Scheme) -> None:
    x = np.random.default_rng(1).normal(0, 1, 500_000).astype(np.float32)
    x[0], x[1] = 30.0, -30.0
    seen = ValueHistogram.of(x)
    fits = {method: scheme.fit(seen, method) for method in RANGE_METHODS}
    noise = {name: np.mean((x - fake_quantize(x, fit)) ** 2) for name, fit in fits.items()}
    # Steps that follow the value leave little to gain.
    assert noise["mse"] <= noise["amax"] * (1.001 if scheme.kind == "fp8" else 0.8)
    assert max(scales(fits["percentile"])) < 0.5 * max(scales(fits["amax"]))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.kind)
def test_fits_survive_yaml(scheme: Scheme) -> None:
    fitted = scheme.fit(ValueHistogram.of(np.array([-0.1, 0.7])), "amax")
    again = from_plain(yaml.safe_load(yaml.safe_dump(to_plain(fitted))), type(fitted), origin="y")
    assert again == fitted
    assert fitted.kind == scheme.kind


@pytest.mark.parametrize(
    "scheme",
    [
        Symmetric(scale=0.0),
        Symmetric(scale=float("nan")),
        Symmetric(scale=-1.0),
        Symmetric(scale=1e-60),
        Shifted(scale=float("inf"), zero_shift=0),
        Shifted(scale=1.0, zero_shift=129),
        Shifted(scale=1.0, zero_shift=-128),
        DualScale(positive_scale=1.0, negative_scale=0.0),
        DualFull(positive_scale=float("nan"), negative_scale=1.0),
        SignMagnitude(scale=-1.0),
        SparseDual(scale=1.0, ratio=0),
        SparseDual(scale=1.0, ratio=9),
        SparseDual(scale=0.0, ratio=2),
        Fp8(scale=float("inf")),
    ],
)
def test_impossible_codes_are_refused_by_site(scheme: ActivationScheme) -> None:
    with pytest.raises(SegQuantError, match=r"site 'block\.3'.*impossible"):
        fake_quantize(np.zeros(1), scheme, site="block.3")


@pytest.mark.parametrize("scheme", TWO_PLANES)
@given(x=inputs())
def test_planes_add_up(scheme: DualScale | DualFull, x: Float) -> None:
    positive, negative = planes(scheme, site="s")
    assert (positive.polarity, negative.polarity) == ("positive", "negative")
    # What the graph does: clips by Max and Min where the codes do not, then codes all values.
    parts = []
    for plane, clipped in ((positive, np.maximum(x, 0)), (negative, np.minimum(x, 0))):
        assert plane.clips_polarity == isinstance(scheme, DualFull)
        ratio = np.rint((x if plane.clips_polarity else clipped) / np.float32(plane.scale))
        codes = np.clip(ratio + plane.zero_point, 0, 255)
        parts.append((codes - plane.zero_point) * np.float32(plane.scale))
    assert not (parts[0] * parts[1]).any()
    np.testing.assert_array_equal(fake_quantize(x, scheme), parts[0] + parts[1])


@pytest.mark.parametrize("scheme", TWO_PLANES)
def test_two_planes_are_not_one(scheme: ActivationScheme) -> None:
    with pytest.raises(SegQuantError, match=r"site 's'.*needs 2 tensors"):
        encoding(scheme, site="s")


@pytest.mark.parametrize("scheme", NO_PLANES)
def test_schemes_of_other_hardware_have_no_planes(scheme: ActivationScheme) -> None:
    with pytest.raises(SegQuantError, match=f"site 's': {scheme.kind} has no form"):
        planes(scheme, site="s")


@every
def test_infinite_ranges_are_refused(scheme: Scheme) -> None:
    counts = np.zeros(2048, dtype=np.int64)
    seen = ValueHistogram(low=0.0, high=float("inf"), radius=1.0, counts=counts)
    with pytest.raises(SegQuantError, match="not a finite interval"):
        scheme.fit(seen, "amax")


def test_keep_float_has_no_codes() -> None:
    assert planes(KeepFloat(), site="s") == ()
    assert encoding(KeepFloat(), site="s") is None
    assert fake_quantize(np.array([0.123]), KeepFloat())[0] == np.float32(0.123)


@given(low=finite, high=finite)
def test_requantised_outputs_cover_their_range(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    found = output_encoding(low, high)
    ends = np.array([low, high], dtype=np.float32)
    error = np.abs(found.dequantize(found.quantize(ends)) - ends)
    assert (error <= found.scale * (0.5 + 1e-4)).all()
