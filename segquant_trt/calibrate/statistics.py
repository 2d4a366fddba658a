"""Streaming statistics of one activation: exact under any split of the data into batches.

The histogram's range is a power of two and doubles when exceeded, two bins becoming one, so that
histograms of different batches, shards and bins can always be added without resampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segquant_trt.records.calibration import HISTOGRAM_BINS, ActivationStats
from segquant_trt.schemes.ranges import widened

if TYPE_CHECKING:
    Float = npt.NDArray[np.float32]

_SMALLEST_EXPONENT = -24


class Accumulator:
    """Ranges, histogram and sample rows of one tensor, per timestep bin.

    Args:
        bins: number of timestep bins B.
        rows_per_bin: rows kept per bin; fewer when less data is seen.
        seed: of the row sampling; equal seeds and data give equal rows.
    """

    def __init__(self, *, bins: int, rows_per_bin: int, seed: int) -> None:
        self._minimum: list[Float | None] = [None] * bins
        self._maximum: list[Float | None] = [None] * bins
        self._histogram = np.zeros((bins, HISTOGRAM_BINS), dtype=np.int64)
        self._exponent = np.full(bins, _SMALLEST_EXPONENT, dtype=np.int32)
        self._rows: list[list[tuple[Float, Float]]] = [[] for _ in range(bins)]
        self._rows_per_bin = rows_per_bin
        self._random = np.random.default_rng(seed)
        self._elements_per_sample = 0

    def update(self, rows: Float, *, step_bin: int, samples: int) -> None:
        """Add a batch: `rows` float32[M, C] from `samples` samples, all of one bin."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        old_low, old_high = self._minimum[step_bin], self._maximum[step_bin]
        self._minimum[step_bin] = low if old_low is None else np.minimum(old_low, low)
        self._maximum[step_bin] = high if old_high is None else np.maximum(old_high, high)
        self._count(rows, step_bin, float(max(-low.min(), high.max(), 0.0)))
        self._sample(rows, step_bin)
        self._elements_per_sample = rows.size // samples

    def _count(self, rows: Float, step_bin: int, amax: float) -> None:
        exponent = int(self._exponent[step_bin])
        while 2.0**exponent < amax:
            self._histogram[step_bin] = widened(self._histogram[step_bin])
            exponent += 1
        self._exponent[step_bin] = exponent
        scale = np.float32(HISTOGRAM_BINS / 2 / 2.0**exponent)
        # Rounded down before the bins are shifted: the sum would round tiny values up to zero.
        position = np.floor(rows.ravel() * scale).astype(np.int32) + HISTOGRAM_BINS // 2
        index = np.clip(position, 0, HISTOGRAM_BINS - 1)
        self._histogram[step_bin] += np.bincount(index, minlength=HISTOGRAM_BINS)

    def _sample(self, rows: Float, step_bin: int) -> None:
        """Keep the rows with the smallest random keys: a uniform sample of all rows seen."""
        keys = self._random.random(len(rows), dtype=np.float32)
        count = min(self._rows_per_bin, len(rows))
        chosen = np.sort(np.argpartition(keys, count - 1)[:count])
        kept = self._rows[step_bin]
        kept.append((keys[chosen], rows[chosen]))
        if len(kept) > 1:
            all_keys = np.concatenate([key for key, _ in kept])
            all_rows = np.concatenate([row for _, row in kept])
            order = np.argsort(all_keys, kind="stable")[: self._rows_per_bin]
            self._rows[step_bin] = [(all_keys[order], all_rows[order])]

    def finish(self) -> ActivationStats:
        """The record; every bin must have been updated at least once."""
        fewest = min(len(kept[0][0]) for kept in self._rows)
        return ActivationStats(
            minimum=np.stack([low for low in self._minimum if low is not None]),
            maximum=np.stack([high for high in self._maximum if high is not None]),
            histogram=self._histogram,
            exponent=self._exponent,
            rows=np.stack([kept[0][1][:fewest] for kept in self._rows]),
            elements_per_sample=self._elements_per_sample,
        )
