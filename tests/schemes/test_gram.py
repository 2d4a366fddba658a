"""Gram matrices: accumulation, merging, and what they say about output errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segquant_trt.errors import SegQuantError
from segquant_trt.schemes.gram import divided, gram, output_energy


def samples(seed: int, *shape: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    spread = 10.0 ** random.uniform(-2, 2, shape[-1])
    return (random.standard_normal(shape) * spread).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (5, 7, 9), (1025, 3), (2, 300)])
def test_it_is_the_sum_of_outer_products(shape: tuple[int, ...]) -> None:
    x = samples(1, *shape)
    wanted = np.zeros((shape[-1], shape[-1]))
    for row in x.reshape(-1, shape[-1]).astype(np.float64):
        wanted += np.outer(row, row)
    found = gram(x)
    # Entries that cancel are as exact as the products that they sum.
    size = np.sqrt(np.outer(np.diagonal(wanted), np.diagonal(wanted)))
    assert (np.abs(found - wanted) <= 1e-13 * size).all()
    np.testing.assert_array_equal(found, found.T)


@given(seed=st.integers(0, 2**20), cut=st.integers(0, 50))
def test_parts_merge_to_the_whole(seed: int, cut: int) -> None:
    """Bit for bit where float64 holds the sums: rows of up to 17 bits."""
    x = np.random.default_rng(seed).integers(-(2**16), 2**16, (50, 6)).astype(np.float32)
    whole = gram(x)
    merged = gram(x[:cut])
    assert gram(x[cut:], into=merged) is merged
    np.testing.assert_array_equal(merged, whole)
    np.testing.assert_array_equal(gram(x[cut:]) + gram(x[:cut]), whole)


def test_chunks_merge_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).integers(-99, 99, (101, 7)).astype(np.float32)
    whole = gram(x)
    monkeypatch.setattr("segquant_trt.schemes.gram._CHUNK_ELEMENTS", 20)
    np.testing.assert_array_equal(gram(x), whole)
    w = samples(3, 23, 7)
    parts = output_energy(w, whole)
    monkeypatch.undo()
    assert parts == pytest.approx(output_energy(w, whole), rel=1e-12)


@pytest.mark.parametrize("taps", [1, 9])
def test_a_divisor_divides_the_rows(taps: int) -> None:
    x = samples(4, 40, 5 * taps)
    d = np.array([0.5, 1.0, 3.0, 1e-3, 80.0], dtype=np.float32)
    by_column = np.stack([d] * taps, axis=1).reshape(-1)
    np.testing.assert_allclose(
        divided(gram(x), d, taps=taps), gram(x.astype(np.float64) / by_column), rtol=1e-9
    )


def test_energy_is_the_squared_output_of_a_linear() -> None:
    x, w = samples(5, 200, 17), samples(6, 11, 17)
    output = x.astype(np.float64) @ w.T.astype(np.float64)
    assert output_energy(w, gram(x)) == pytest.approx(np.square(output).sum(), rel=1e-12)


def test_energy_is_the_squared_output_of_a_convolution() -> None:
    image = samples(7, 3, 8, 9)
    kernel = samples(8, 4, 3, 3, 3)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
    patches = windows.transpose(1, 2, 0, 3, 4).reshape(6 * 7, 27)
    output = 0.0
    for n in range(4):
        for i in range(6):
            for j in range(7):
                window = image[:, i : i + 3, j : j + 3].astype(np.float64)
                output += float((window * kernel[n]).sum()) ** 2
    energy = output_energy(kernel.reshape(4, -1), gram(patches))
    assert energy == pytest.approx(output, rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_refused(value: float) -> None:
    x = samples(9, 5, 3)
    x[2, 1] = value
    with pytest.raises(SegQuantError, match="NaN or infinity"):
        gram(x)
