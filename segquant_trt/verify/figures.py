"""The figures of merit: SQNR, PSNR, SSIM, Fréchet distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segquant_trt.errors import SegQuantError

Float = npt.NDArray[np.floating]

CEILING_DB = 200.0  # what an exact match is reported as; float64 rounding is far above it


def sqnr_db(reference: Float, approximation: Float) -> npt.NDArray[np.float64]:
    """`10 log10(sum ref^2 / sum (ref - approx)^2)` per sample, in float64.

    Args:
        reference, approximation: float[N, ...] of equal shape.

    Returns:
        float64[N] in dB, within `CEILING_DB` of zero; `-CEILING_DB` for a sample whose
        approximation has NaN or infinity, as float16 gives above 65504.
    """
    ref = np.asarray(reference, dtype=np.float64).reshape(len(reference), -1)
    approx = np.asarray(approximation, dtype=np.float64).reshape(len(ref), -1)
    finite = np.asarray(np.isfinite(approx).all(axis=1))
    error = ref - np.where(finite[:, None], approx, 0.0)
    signal, noise = (ref**2).sum(axis=1), (error**2).sum(axis=1)
    tiny = np.finfo(np.float64).tiny
    ratio_db = 10.0 * (np.log10(np.maximum(signal, tiny)) - np.log10(np.maximum(noise, tiny)))
    ratio_db = np.where(finite, ratio_db, -CEILING_DB)
    return np.asarray(np.clip(ratio_db, -CEILING_DB, CEILING_DB), dtype=np.float64)


def psnr_db(reference: Float, approximation: Float) -> float:
    """Mean PSNR in dB of images float[N, H, W] or [N, H, W, 3] in 0..1.

    An approximation with NaN or infinity counts as `-CEILING_DB`.
    """
    from skimage.metrics import peak_signal_noise_ratio

    def one(image: Float, other: Float) -> float:
        if not np.isfinite(other).all():
            return -CEILING_DB
        if np.array_equal(image, other):
            return CEILING_DB
        return min(float(peak_signal_noise_ratio(image, other, data_range=1.0)), CEILING_DB)

    pairs = zip(_double(reference), _double(approximation), strict=True)
    return float(np.mean([one(image, other) for image, other in pairs]))


def ssim(reference: Float, approximation: Float) -> float:
    """Mean SSIM of images float[N, H, W] or [N, H, W, 3] in 0..1 (Wang et al. 2004, 7x7 window).

    An approximation with NaN or infinity counts as -1, the least that SSIM can be.
    """
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(a, b, data_range=1.0, channel_axis=-1 if a.ndim == 3 else None)
        if np.isfinite(b).all()
        else -1.0
        for a, b in zip(_double(reference), _double(approximation), strict=True)
    ]
    return float(np.mean(values))


def frechet_distance(features: Float, mean: Float, covariance: Float) -> float:
    """Fréchet distance between Gaussian fits: `|m1-m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.

    Args:
        features: float[N, F] of the generated images, N >= 2.
        mean, covariance: float[F] and float[F, F] of the reference set.

    Raises:
        SegQuantError: a feature is NaN or infinite, as those of an image with NaN are.
    """
    values = _double(features)
    broken = int((~np.isfinite(values).all(axis=1)).sum())
    if broken:
        raise SegQuantError(
            f"{broken} of {len(values)} images have features that are NaN or infinite: the "
            "denoiser that drew them diverges",
            hint="keep the sites that cost most in float (--keep-float), or calibrate on more "
            "samples",
        )
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
