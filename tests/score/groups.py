"""Groups of sites on made-up data: outlier channels, one polarity, odd sizes, gains of any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segquant_trt.calibrate.statistics import Accumulator
from segquant_trt.records import LinearSite
from segquant_trt.records.calibration import ActivationStats
from segquant_trt.score.group import Group, Member
from tests.score.denoisers import site

Float = npt.NDArray[np.float32]
EDGES = (0.0, 300.0, 600.0)


def activations(seed: int, rows: int, sizes: Sequence[int], *, bins: int = 3) -> Float:
    """float32[B, R, C]: segments of unlike range, some after SiLU, with outlier channels."""
    random = np.random.default_rng(seed)
    parts = []
    for index, size in enumerate(sizes):
        x = random.standard_normal((bins, rows, size)) * np.exp(random.normal(0, 0.5, size))
        x[..., random.integers(0, size)] *= 12.0
        x *= np.linspace(1.0, 2.5, bins)[:, None, None] * (1.0, 0.15, 4.0)[index % 3]
        parts.append(x if index % 2 == 0 else x / (1.0 + np.exp(-3.0 * x)))
    return np.concatenate(parts, axis=-1).astype(np.float32)


def weight(seed: int, outputs: int, columns: int) -> Float:
    random = np.random.default_rng(seed + 500)
    return (0.1 * random.standard_t(6, (outputs, columns))).astype(np.float32)


def stats(rows: Float) -> ActivationStats:
    """Statistics of exactly these rows [B, R, C]."""
    accumulator = Accumulator(bins=len(rows), rows_per_bin=rows.shape[1], seed=0)
    for index, part in enumerate(rows):
        accumulator.update(part, step_bin=index, samples=1)
    return accumulator.finish()


def patches_of(seed: int, rows: int, sizes: Sequence[int], taps: int) -> Float:
    """[B, R, C * taps]: patches of pixels that have the same distribution."""
    pixels = activations(seed, rows * taps, sizes)
    bins, channels = len(pixels), pixels.shape[-1]
    found = pixels.reshape(bins, rows, taps, channels).swapaxes(2, 3)
    return np.ascontiguousarray(found).reshape(bins, rows, -1)


def member(wanted: LinearSite, rows: Float, seed: int) -> Member:
    """Gains are drawn: one per bin and output channel, those of white noise being others."""
    taps = int(np.prod(wanted.kernel, dtype=int))
    columns = wanted.in_features // wanted.groups * taps
    random = np.random.default_rng(seed + 900)
    gains = np.exp(random.normal(-3, 1.0, (2, len(rows), wanted.out_features)))
    w = weight(seed, wanted.out_features, columns)
    bias = random.standard_normal(wanted.out_features).astype(np.float32)
    shares = np.split(rows, wanted.groups, axis=-1)
    products = [x @ part.T for x, part in zip(shares, np.split(w, wanted.groups), strict=True)]
    return Member(
        site=wanted,
        rows=rows,
        weight=w,
        bias=bias,
        gains=gains[0],
        white=gains[1],
        output=stats(np.concatenate(products, axis=-1) + bias),
    )


def group(
    members: Sequence[Member],
    rows: Float,
    segments: Sequence[int] = (),
    *,
    polar: Sequence[int] = (),
    edges: tuple[float, ...] = EDGES,
) -> Group:
    return Group(
        tensor="x",
        members=tuple(members),
        rows=rows,
        low=rows.min(axis=1),
        high=rows.max(axis=1),
        segments=tuple(segments) or (rows.shape[-1],),
        polar=frozenset(polar),
        edges=edges,
    )


def linears(
    seed: int, rows: int, sizes: Sequence[int], outputs: Sequence[int], **given: Sequence[int]
) -> Group:
    """Linears that read one activation."""
    x = activations(seed, rows, sizes)
    found = [
        member(site(f"fc{i}", inputs=sum(sizes), outputs=n), x, seed + i)
        for i, n in enumerate(outputs)
    ]
    return group(found, x, sizes, **given)


def convolution(seed: int, rows: int, sizes: Sequence[int], outputs: int, groups: int = 1) -> Group:
    """A 3x3 convolution."""
    patches = patches_of(seed, rows, sizes, 9)
    wanted = site(
        "conv", op="Conv", inputs=sum(sizes), outputs=outputs, kernel=(3, 3), groups=groups
    )
    return group([member(wanted, patches, seed)], patches[..., 4::9].copy(), sizes)


def steps_of(edges: Sequence[float], rows: int) -> Float:
    """A timestep of each bin for each of its rows, [B * R]."""
    return np.repeat(np.asarray(edges, dtype=np.float32) + 0.5, rows)
