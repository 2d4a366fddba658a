"""The reference of a whole site against formulas written out in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.records import (
    ActivationScheme,
    DualFull,
    DualScale,
    KeepFloat,
    PerStep,
    PerToken,
    RowFactor,
    SegmentPlan,
    Smoothing,
    SparseDual,
    Static,
    Symmetric,
    Treatment,
    WeightPlan,
    left_in_float,
)
from segquant_trt.schemes import (
    SCHEMES,
    ValueHistogram,
    coded_weight,
    quantize_weight,
    segment_sqnr_db,
    site_output,
)
from tests.schemes.activations import EPSILON, Float, inputs, rows_of

STEPS = PerStep(edges=(0.0, 500.0), factors=(0.5, 3.0))
FACTORS: tuple[RowFactor, ...] = (Static(), PerToken(), STEPS)


def level(x: Float, scale: float, low: int, high: int) -> np.ndarray:
    return np.clip(np.rint(x / np.float32(scale)), low, high).astype(np.float64)


def float8(x: Float, scale: float) -> np.ndarray:
    """Rounded to three mantissa bits, or to multiples of 2**-9 below 2**-6; at most 448."""
    ratio = (x / np.float32(scale)).astype(np.float64)
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(ratio), 1e-300))), -6)
    step = 2.0 ** (exponent - 3)
    return np.clip(step * np.rint(ratio / step), -448, 448) * scale


def halves(x: Float, scheme: DualScale | DualFull, reach: tuple[int, int]) -> np.ndarray:
    above = level(np.maximum(x, 0), scheme.positive_scale, 0, reach[1])
    below = level(np.minimum(x, 0), scheme.negative_scale, reach[0], 0)
    return above * scheme.positive_scale + below * scheme.negative_scale


REFERENCES: dict[str, Callable] = {
    "symmetric": lambda x, s: level(x, s.scale, -128, 127) * s.scale,
    "shifted": lambda x, s: (
        (np.clip(np.rint(x / np.float32(s.scale)) - s.zero_shift, -128, 127) + s.zero_shift).astype(
            np.float64
        )
        * s.scale
    ),
    "dual_scale": lambda x, s: halves(x, s, (-128, 127)),
    "dual_full": lambda x, s: halves(x, s, (-255, 255)),
    "sign_magnitude": lambda x, s: level(x, s.scale, -255, 255) * s.scale,
    "fp8": lambda x, s: float8(x, s.scale),
    "keep_float": lambda x, s: x.astype(np.float64),
}


def contribution(
    x: Float, codes: np.ndarray, scale: np.ndarray, scheme: ActivationScheme
) -> tuple[np.ndarray, np.ndarray]:
    """A segment's product in float64, and the sum of magnitudes that its rounding is bound by."""
    rows = codes * scale.astype(np.float64)[:, None]
    if isinstance(scheme, SparseDual):
        step = float(np.float32(scheme.scale) / np.float32(scheme.ratio))
        above = level(np.maximum(x, 0), scheme.scale, 0, 255) * scheme.scale
        below = level(np.maximum(-x, 0), step, 0, 255) * step
        coarse = np.rint(codes / scheme.ratio) * scheme.ratio * scale.astype(np.float64)[:, None]
        total = above @ rows.T - below @ coarse.T
        return total, above @ np.abs(rows).T + below @ np.abs(coarse).T
    decoded = REFERENCES[scheme.kind](x, scheme)
    return decoded @ rows.T, np.abs(decoded) @ np.abs(rows).T


def allowed(size: np.ndarray, terms: int) -> np.ndarray:
    return (terms + 16) * 4 * EPSILON * size + 1e-36


def fitted(x: Float, kind: str) -> ActivationScheme:
    fit = next(scheme.fit for scheme in SCHEMES if scheme.kind == kind)
    return fit(ValueHistogram.of(x), "amax")


def absmax_codes(rows: Float) -> tuple[np.ndarray, np.ndarray]:
    amax = np.abs(rows).max(axis=1)
    scale = np.where(amax > 0, amax / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(rows / scale[:, None]).astype(np.float64), scale


@pytest.mark.parametrize("kind", [scheme.kind for scheme in SCHEMES])
@settings(max_examples=30)
@given(
    x=inputs(kinds=("silu", "normal", "negative", "constant", "one_outlier", "zeros")),
    factor=st.sampled_from(FACTORS),
    seed=st.integers(0, 2**16),
)
def test_one_segment(kind: str, x: Float, factor: RowFactor, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = rows_of("normal", seed, (5, x.shape[1]))
    bias = random.standard_normal(5).astype(np.float32) * 100
    timestep = random.uniform(-5, 1000, len(x)).astype(np.float32)
    match factor:
        case Static():
            r = np.ones((len(x), 1), dtype=np.float32)
        case PerToken():
            r = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        case _:
            r = np.where(timestep >= 500, 3.0, 0.5).astype(np.float32)[:, None]
    scheme = fitted(x / r, kind)
    codes, scale = absmax_codes(rows)
    product, size = contribution(x / r if kind != "keep_float" else x, codes, scale, scheme)
    if kind == "keep_float":
        r = np.ones_like(r)
    treatment = Treatment(
        segments=(SegmentPlan(channels=x.shape[1], activation=scheme, factor=factor),),
        weight=WeightPlan(),
    )
    found = site_output(x, rows, treatment, {}, bias, timestep)
    assert found.dtype == np.float32
    wanted = r * product + bias
    assert (np.abs(found - wanted) <= allowed(r * size + np.abs(bias), x.shape[1])).all()


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.sampled_from([1, 2, 17, 33]), min_size=1, max_size=4)))


@settings(max_examples=60)
@given(
    sizes=splits(),
    seed=st.integers(0, 2**16),
    smooth=st.booleans(),
    taps=st.sampled_from([1, 9]),
)
def test_split_smoothed_sites(sizes: tuple[int, ...], seed: int, smooth: bool, taps: int) -> None:
    """Every segment with its own scheme, factor and weight scales."""
    random = np.random.default_rng(seed)
    channels = sum(sizes)
    x = rows_of("silu", seed, (3, channels * taps))
    rows = rows_of("normal", seed + 1, (5, channels * taps))
    divisor = np.exp(random.normal(0, 1, channels)).astype(np.float32)
    wide = np.ones(channels * taps, dtype=np.float32)
    if smooth:
        wide = np.concatenate([np.full(taps, value) for value in divisor])
    smoothed, weighted = x / wide, rows * wide
    parts, wanted, size, first = [], np.zeros((3, 5)), np.zeros((3, 5)), 0
    for channels_here in sizes:
        own = slice(first * taps, (first + channels_here) * taps)
        first += channels_here
        factor = (Static(), STEPS, PerToken())[random.integers(2 if taps > 1 else 3)]
        part = smoothed[:, own]
        r = np.ones((3, 1), dtype=np.float32)
        if isinstance(factor, PerToken):
            r = np.abs(part).max(axis=1, keepdims=True)
        elif isinstance(factor, PerStep):
            r = np.full((3, 1), 3.0, dtype=np.float32)
        kind = SCHEMES[random.integers(len(SCHEMES))].kind
        if kind == "keep_float":
            r = np.ones_like(r)
        scheme = fitted(part / r, kind)
        product, magnitude = contribution(part / r, *absmax_codes(weighted[:, own]), scheme)
        wanted += r * product
        size += r * magnitude
        parts.append(SegmentPlan(channels=channels_here, activation=scheme, factor=factor))
    treatment = Treatment(
        segments=tuple(parts),
        smoothing=Smoothing(divisor="d-1", alpha=0.5, segment_exponent=None) if smooth else None,
        weight=WeightPlan(),
    )
    arrays = {"d-1": divisor}
    bound = allowed(size, channels * taps)
    found = site_output(x, rows, treatment, arrays, timestep=700.0, taps=taps)
    assert (np.abs(found - wanted) <= bound).all()
    coded = coded_weight(rows, treatment, arrays, taps)
    assert [part.codes.shape[1] for part in coded] == [taps * count for count in sizes]
    again = site_output(x, coded, treatment, arrays, timestep=700.0, taps=taps)
    np.testing.assert_array_equal(found, again)


def test_convolution_is_a_linear_over_patches() -> None:
    """Direct loops over a padded, strided convolution with a divisor per input channel."""
    random = np.random.default_rng(5)
    image = rows_of("silu", 5, (4, 42)).reshape(4, 6, 7)
    kernels = random.standard_normal((3, 4, 3, 3)).astype(np.float32)
    divisor = np.array([0.5, 2.0, 1.0, 4.0], dtype=np.float32)
    bias = random.standard_normal(3).astype(np.float32)
    smoothed = np.pad(image / divisor[:, None, None], ((0, 0), (1, 1), (1, 1)))
    scheme = fitted(smoothed, "shifted")
    codes, scale = absmax_codes((kernels * divisor[None, :, None, None]).reshape(3, -1))
    rows = (codes * scale[:, None].astype(np.float64)).reshape(3, 4, 3, 3)
    decoded = REFERENCES["shifted"](smoothed, scheme)
    wanted, patches = [], []
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    for i in range(0, 6, 2):
        for j in range(0, 7, 2):
            window = decoded[:, i : i + 3, j : j + 3]
            wanted.append([np.sum(window * rows[n]) + bias[n] for n in range(3)])
            patches.append(padded[:, i : i + 3, j : j + 3].ravel())
    treatment = Treatment(
        segments=(SegmentPlan(channels=4, activation=scheme),),
        smoothing=Smoothing(divisor="d", alpha=0.5, segment_exponent=None),
        weight=WeightPlan(),
    )
    weight = kernels.reshape(3, -1)
    found = site_output(np.stack(patches), weight, treatment, {"d": divisor}, bias, taps=9)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_float_sites_are_left_alone() -> None:
    x, rows = rows_of("normal", 0, (3, 17)), rows_of("normal", 1, (5, 17))
    bias = np.arange(5, dtype=np.float32)
    found = site_output(x, rows, left_in_float(17), {}, bias)
    np.testing.assert_array_equal(found, x @ rows.T + bias)


@pytest.mark.parametrize("bits", [4, 8])
def test_weight_only(bits) -> None:
    x, rows = rows_of("normal", 0, (3, 34)), rows_of("normal", 1, (5, 34))
    treatment = Treatment(
        segments=(SegmentPlan(channels=34, activation=KeepFloat(), factor=PerToken()),),
        weight=WeightPlan(bits=bits),
    )
    scale = (np.abs(rows).max(axis=1) / np.float32(2 ** (bits - 1) - 1))[:, None]
    wanted = x.astype(np.float64) @ (np.rint(rows / scale) * scale).T
    found = site_output(x, rows, treatment, {})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("block", [None, 4])
def test_optimised_codes_are_read_by_segment(block) -> None:
    random = np.random.default_rng(0)
    x = rows_of("normal", 0, (3, 15))
    codes = random.integers(-7, 8, (5, 15)).astype(np.int8)
    # Segments of 6 and 9 channels have two and three blocks, the last ones short.
    scale = random.uniform(0.1, 1, (5, 2 if block is None else 5)).astype(np.float32)
    columns = [0] * 6 + [1] * 9
    if block is not None:
        columns = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]
    rows = codes * scale[:, columns]
    treatment = Treatment(
        segments=(
            SegmentPlan(channels=6, activation=KeepFloat()),
            SegmentPlan(channels=9, activation=KeepFloat()),
        ),
        weight=WeightPlan(bits=4, block=block, rounding="gptq", codes="w-1"),
    )
    arrays = {"w-1.codes": codes, "w-1.scale": scale}
    found = site_output(x, np.zeros((5, 15), dtype=np.float32), treatment, arrays)
    np.testing.assert_allclose(found, x @ rows.T, rtol=0, atol=1e-5)


def test_optimised_codes_of_a_whole_site_have_one_scale_per_channel() -> None:
    x = rows_of("normal", 0, (3, 15))
    weight = quantize_weight(rows_of("normal", 1, (5, 15)), WeightPlan())
    treatment = Treatment(
        segments=(SegmentPlan(channels=15, activation=Symmetric(scale=0.02)),),
        weight=WeightPlan(rounding="gptq", codes="w-1"),
    )
    arrays = {"w-1.codes": weight.codes, "w-1.scale": weight.scale}
    np.testing.assert_array_equal(
        site_output(x, np.zeros((5, 15), dtype=np.float32), treatment, arrays),
        site_output(x, (weight,), treatment, {}),
    )


def shared_scale(channels: int, scheme: ActivationScheme, key: str | None = None) -> Treatment:
    smoothing = Smoothing(divisor=key, alpha=None, segment_exponent=1.0) if key else None
    part = SegmentPlan(channels=channels, activation=scheme)
    return Treatment(segments=(part,), smoothing=smoothing, weight=WeightPlan())


def test_segments_contributions() -> None:
    """Against explicit products; a narrow segment is lost below a wide one's scales."""
    x, rows = rows_of("normal", 0, (50, 40)), rows_of("normal", 1, (8, 40))
    x[:, :10] *= 0.01
    rows[:, :10] *= 0.05
    scheme = fitted(x, "symmetric")
    treatment = shared_scale(40, scheme)
    codes, scale = absmax_codes(rows)
    wanted = []
    for own in (slice(0, 10), slice(10, 40)):
        reference = x[:, own].astype(np.float64) @ rows[:, own].T
        part, _ = contribution(x[:, own], codes[:, own], scale, scheme)
        wanted.append(10 * np.log10(np.sum(reference**2) / np.sum((reference - part) ** 2)))
    found = segment_sqnr_db(x, rows, treatment, {}, sizes=(10, 30))
    assert found == pytest.approx(wanted, abs=1e-3)
    assert found[0] < 10 < 35 < found[1]
    whole = segment_sqnr_db(x, rows, treatment, {}, sizes=(40,))[0]
    assert whole > 35, "which does not show in the whole"
    split = Treatment(
        segments=tuple(
            SegmentPlan(channels=part.shape[1], activation=fitted(part, "symmetric"))
            for part in (x[:, :10], x[:, 10:])
        ),
        weight=WeightPlan(),
    )
    assert min(segment_sqnr_db(x, rows, split, {}, sizes=(10, 30))) > 35


def test_rescaled_activations_may_still_lose_a_segment_in_the_weight() -> None:
    """The divisor evens out activations and moves the mismatch into shared column scales."""
    x, rows = rows_of("normal", 0, (50, 40)), rows_of("normal", 1, (8, 40))
    x[:, :10] *= 0.001
    divisor = np.where(np.arange(40) < 10, 0.001, 1.0).astype(np.float32)
    treatment = shared_scale(40, fitted(x / divisor, "symmetric"), "d")
    found = segment_sqnr_db(x, rows, treatment, {"d": divisor}, sizes=(10, 30))
    assert found[0] < 3 < 35 < found[1]


@pytest.mark.parametrize("kind", [scheme.kind for scheme in SCHEMES])
def test_finer_segments_than_the_treatments(kind: str) -> None:
    """Contributions of any division add up to the output; one-channel and mute segments too."""
    x, rows = rows_of("silu", 3, (6, 24)), rows_of("normal", 4, (5, 24))
    x[:, 7:11] = 0.0
    parts = tuple(
        SegmentPlan(channels=own.shape[1], activation=fitted(own, kind))
        for own in (x[:, :9], x[:, 9:])
    )
    treatment = Treatment(segments=parts, weight=WeightPlan())
    weight = coded_weight(rows, treatment, {})
    found = segment_sqnr_db(x, rows, treatment, {}, sizes=(1, 6, 4, 13), weight=weight)
    assert found[2] is None
    assert all(figure is not None and 15 < figure < 60 for figure in found[:2] + found[3:])
    exact = segment_sqnr_db(x, rows, left_in_float(24), {}, sizes=(20, 4))
    assert all(figure is not None and figure > 120 for figure in exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (4, 4)}, r"segments of \(4, 4\) channels with 1 taps do not fit .* 9"),
        ({"smoothing": "d-2"}, "array 'd-2'"),
        ({"smoothing": "short"}, "divisor 'short' of 3 channels"),
        ({"smoothing": "zero"}, "not positive and finite"),
        ({"weight": WeightPlan(codes="w-9")}, r"array 'w-9\.codes'"),
        ({"weight": WeightPlan(codes="w-1")}, "codes 'w-1'"),
        ({"taps": 3, "sizes": (3,), "factor": PerToken()}, "no per_token factor"),
        ({"factor": STEPS}, "need a timestep"),
    ],
)
def test_treatments_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    sizes = change.get("sizes", (9,))
    treatment = Treatment(
        segments=tuple(
            SegmentPlan(
                channels=size,
                activation=Symmetric(scale=0.1),
                factor=change.get("factor", Static()),
            )
            for size in sizes
        ),
        smoothing=Smoothing(divisor=change["smoothing"], alpha=0.5, segment_exponent=None)
        if "smoothing" in change
        else None,
        weight=change.get("weight", WeightPlan()),
    )
    arrays = {
        "short": np.ones(3, dtype=np.float32),
        "zero": np.zeros(9, dtype=np.float32),
        "w-1.codes": np.zeros((5, 8), dtype=np.int8),
        "w-1.scale": np.ones(5, dtype=np.float32),
    }
    x, rows = rows_of("normal", 0, (3, 9)), rows_of("normal", 1, (5, 9))
    with pytest.raises(SegQuantError, match=message):
        site_output(x, rows, treatment, arrays, taps=change.get("taps", 1))


def test_every_scheme_has_a_reference_here() -> None:
    assert {scheme.kind for scheme in SCHEMES} == {*REFERENCES, "sparse_dual"}
