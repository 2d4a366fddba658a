"""Read one tensor's calibration as the histogram that range search works on."""

from __future__ import annotations

import numpy as np

from segquant_trt.records.calibration import ActivationStats
from segquant_trt.schemes.ranges import ValueHistogram, widened


def over_all_steps(stats: ActivationStats) -> ValueHistogram:
    """All timestep bins together, brought to their widest radius."""
    widest = int(stats.exponent.max())
    counts = np.zeros(stats.histogram.shape[1], dtype=np.int64)
    for histogram, exponent in zip(stats.histogram, stats.exponent, strict=True):
        for _ in range(widest - int(exponent)):
            histogram = widened(histogram)
        counts += histogram
    return ValueHistogram(
        low=float(stats.minimum.min()),
        high=float(stats.maximum.max()),
        radius=2.0**widest,
        counts=counts,
    )
