"""The figures of merit: SQNR, PSNR, SSIM, Fréchet distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.floating]

CEILING_DB = 200.0  # what an exact match is reported as; float64 rounding is far above it


def sqnr_db(reference: Float, approximation: Float) -> npt.NDArray[np.float64]:
    """`10 log10(sum ref^2 / sum (ref - approx)^2)` per sample, in float64.

    Args:
        reference, approximation: float[N, ...] of equal shape.

    Returns:
        float64[N] in dB, within `CEILING_DB` of zero.
    """
    ref = np.asarray(reference, dtype=np.float64).reshape(len(reference), -1)
    error = ref - np.asarray(approximation, dtype=np.float64).reshape(len(ref), -1)
    signal, noise = (ref**2).sum(axis=1), (error**2).sum(axis=1)
    tiny = np.finfo(np.float64).tiny
    ratio_db = 10.0 * (np.log10(np.maximum(signal, tiny)) - np.log10(np.maximum(noise, tiny)))
    return np.asarray(np.clip(ratio_db, -CEILING_DB, CEILING_DB), dtype=np.float64)


def psnr_db(reference: Float, approximation: Float) -> float:
    """Mean PSNR in dB of images float[N, H, W] or [N, H, W, 3] in 0..1."""
    from skimage.metrics import peak_signal_noise_ratio

    values = [
        CEILING_DB if np.array_equal(a, b) else peak_signal_noise_ratio(a, b, data_range=1.0)
        for a, b in zip(_double(reference), _double(approximation), strict=True)
    ]
    return float(np.mean(np.minimum(values, CEILING_DB)))


def ssim(reference: Float, approximation: Float) -> float:
    """Mean SSIM of images float[N, H, W] or [N, H, W, 3] in 0..1 (Wang et al. 2004, 7x7 window)."""
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(a, b, data_range=1.0, channel_axis=-1 if a.ndim == 3 else None)
        for a, b in zip(_double(reference), _double(approximation), strict=True)
    ]
    return float(np.mean(values))


def frechet_distance(features: Float, mean: Float, covariance: Float) -> float:
    """Fréchet distance between Gaussian fits: `|m1-m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.

    Args:
        features: float[N, F] of the generated images, N >= 2.
        mean, covariance: float[F] and float[F, F] of the reference set.
    """
    values = _double(features)
    own_mean, own_covariance = values.mean(axis=0), np.cov(values, rowvar=False)
    # The trace of the square root is the sum of the roots of the eigenvalues, which are real and
    # not negative for a product of covariances; this also holds for singular ones.
    eigenvalues = np.linalg.eigvals(own_covariance @ _double(covariance)).real
    shift = ((own_mean - _double(mean)) ** 2).sum()
    common = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    spread = np.trace(own_covariance) + np.trace(_double(covariance)) - 2.0 * common
    return float(max(shift + spread, 0.0))


def _double(array: Float) -> npt.NDArray[np.float64]:
    return np.asarray(array, dtype=np.float64)
