"""Streaming statistics of one activation: exact under any split of the data into batches.

The histogram's range is a power of two and doubles when exceeded, two bins becoming one, so that
histograms of different batches, shards and bins can always be added without resampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from segquant_trt.records.calibration import HISTOGRAM_BINS, ActivationStats
from segquant_trt.schemes.ranges import widened

if TYPE_CHECKING:
    Float = npt.NDArray[np.float32]

_SMALLEST_EXPONENT = -24
_ROW_BYTES_PER_BIN = 1 << 18
_FEWEST_ROWS = 32


class RowSample:
    """A uniform sample of all rows seen: those with the smallest random keys are kept.

    Args:
        rows: how many are kept.
        random: whose keys decide; equal generators and data give equal rows.
    """

    def __init__(self, *, rows: int, random: np.random.Generator) -> None:
        self._limit = rows
        self._random = random
        self._keys: npt.NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._kept: Float | None = None

    def offer(self, count: int, rows_at: Callable[[npt.NDArray[np.intp]], Float]) -> None:
        """Offer `count` rows, of which `rows_at(indices)` gives those that are wanted."""
        keys = self._random.random(count, dtype=np.float32)
        wanted = min(self._limit, count)
        chosen = np.sort(np.argpartition(keys, wanted - 1)[:wanted])
        rows = rows_at(chosen)
        all_keys = np.concatenate([self._keys, keys[chosen]])
        all_rows = rows if self._kept is None else np.concatenate([self._kept, rows])
        if len(all_keys) > self._limit:
            order = np.argsort(all_keys, kind="stable")[: self._limit]
            all_keys, all_rows = all_keys[order], all_rows[order]
        self._keys, self._kept = all_keys, all_rows

    def rows(self) -> Float:
        """float32[R, C]; something must have been offered."""
        assert self._kept is not None
        return self._kept


def stacked(samples: Sequence[RowSample]) -> Float:
    """float32[B, R, C]: the samples of all bins, each cut to the smallest one's length."""
    kept = [sample.rows() for sample in samples]
    fewest = min(map(len, kept))
    return np.stack([rows[:fewest] for rows in kept])


class Accumulator:
    """Ranges, histogram and sample rows of one tensor, per timestep bin.

    Args:
        bins: number of timestep bins B.
        rows_per_bin: rows kept per bin; fewer when less data is seen, or when rows are wide.
        seed: of the row sampling; equal seeds and data give equal rows.
    """

    def __init__(self, *, bins: int, rows_per_bin: int, seed: int) -> None:
        self._minimum: list[Float | None] = [None] * bins
        self._maximum: list[Float | None] = [None] * bins
        self._histogram = np.zeros((bins, HISTOGRAM_BINS), dtype=np.int64)
        self._exponent = np.full(bins, _SMALLEST_EXPONENT, dtype=np.int32)
        self._random = np.random.default_rng(seed)
        self._rows_per_bin = rows_per_bin
        self._rows: list[RowSample] = []
        self._elements_per_sample = 0

    def update(self, rows: Float, *, step_bin: int, samples: int) -> None:
        """Add a batch: `rows` float32[M, C] from `samples` samples, all of one bin."""
        low, high = rows.min(axis=0), rows.max(axis=0)
        old_low, old_high = self._minimum[step_bin], self._maximum[step_bin]
        self._minimum[step_bin] = low if old_low is None else np.minimum(old_low, low)
        self._maximum[step_bin] = high if old_high is None else np.maximum(old_high, high)
        self._count(rows, step_bin, float(max(-low.min(), high.max(), 0.0)))
        if not self._rows:
            most = max(_FEWEST_ROWS, _ROW_BYTES_PER_BIN // rows[0].nbytes)
            limit = min(self._rows_per_bin, most)
            self._rows = [RowSample(rows=limit, random=self._random) for _ in self._minimum]
        self._rows[step_bin].offer(len(rows), rows.__getitem__)
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

    def finish(self) -> ActivationStats:
        """The record; every bin must have been updated at least once."""
        return ActivationStats(
            minimum=np.stack([low for low in self._minimum if low is not None]),
            maximum=np.stack([high for high in self._maximum if high is not None]),
            histogram=self._histogram,
            exponent=self._exponent,
            rows=stacked(self._rows),
            elements_per_sample=self._elements_per_sample,
        )
