"""Figures of merit against their definitions, written out independently."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segquant_trt.errors import SegQuantError
from segquant_trt.verify.figures import CEILING_DB, frechet_distance, psnr_db, sqnr_db, ssim


def test_sqnr_is_per_sample_and_in_decibels() -> None:
    reference = np.array([[3.0, 4.0], [1.0, 0.0]], dtype=np.float32)
    approximation = np.array([[3.0, 3.5], [1.0, 0.1]], dtype=np.float32)
    expected = [10 * math.log10(25 / 0.25), 10 * math.log10(1 / float(np.float32(0.1)) ** 2)]
    assert sqnr_db(reference, approximation) == pytest.approx(expected, abs=1e-9)


def test_sqnr_does_not_lose_small_errors_to_float32() -> None:
    reference = np.ones((1, 1000), dtype=np.float64)
    assert sqnr_db(reference, reference + 1e-9)[0] == pytest.approx(180.0, abs=1e-3)


def test_exact_match_reports_the_ceiling_and_zero_reference_the_floor() -> None:
    zeros, ones = np.zeros((1, 4)), np.ones((1, 4))
    assert sqnr_db(ones, ones)[0] == CEILING_DB
    assert sqnr_db(zeros, ones)[0] == -CEILING_DB
    assert sqnr_db(zeros, zeros)[0] == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_approximations_that_are_not_finite_get_the_least_figure(value: float) -> None:
    reference = np.full((2, 16, 16), 0.5, dtype=np.float32)
    broken = reference + np.float32(0.25)
    broken[1, 3, 4] = value
    good_db = 10 * math.log10(0.5**2 / 0.25**2)
    assert sqnr_db(reference, broken).tolist() == pytest.approx([good_db, -CEILING_DB])
    whole = psnr_db(reference[:1], broken[:1])
    assert psnr_db(reference, broken) == pytest.approx((whole - CEILING_DB) / 2)
    alike = ssim(reference[:1], broken[:1])
    assert ssim(reference, broken) == pytest.approx((alike - 1.0) / 2)


def test_psnr_of_a_constant_offset() -> None:
    images = np.full((3, 16, 16), 0.5, dtype=np.float32)
    assert psnr_db(images, images + 0.25) == pytest.approx(-20 * math.log10(0.25))
    assert psnr_db(images, images) == CEILING_DB


def test_ssim_is_one_for_equal_images_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((2, 16, 16)).astype(np.float32)
    colour = rng.random((2, 16, 16, 3)).astype(np.float32)
    assert ssim(images, images) == pytest.approx(1.0)
    assert ssim(colour, colour) == pytest.approx(1.0)
    slightly = ssim(images, images + rng.normal(0, 0.05, images.shape))
    strongly = ssim(images, images + rng.normal(0, 0.5, images.shape))
    assert 1.0 > slightly > strongly


def test_frechet_distance_of_diagonal_gaussians() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal([0.0, 1.0, -2.0], [1.0, 2.0, 0.5], size=(200_000, 3))
    mean, deviation = np.array([1.0, 1.0, 0.0]), np.array([2.0, 2.0, 1.0])
    # For commuting covariances the distance is |m1-m2|^2 + sum (d1-d2)^2.
    expected = (1.0 + 0.0 + 4.0) + (1.0 + 0.0 + 0.25)
    found = frechet_distance(features, mean, np.diag(deviation**2))
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_frechet_distance_of_broken_images_says_how_many(value: float) -> None:
    features = np.random.default_rng(3).normal(size=(20, 3)).astype(np.float32)
    features[4, 1] = features[9] = value
    with pytest.raises(SegQuantError, match="2 of 20 images") as refused:
        frechet_distance(features, np.zeros(3), np.eye(3))
    assert "--keep-float" in refused.value.hint


def test_frechet_distance_to_itself_is_zero() -> None:
    features = np.random.default_rng(2).normal(size=(500, 8))
    own = frechet_distance(features, features.mean(axis=0), np.cov(features, rowvar=False))
    assert own == pytest.approx(0.0, abs=1e-6)
