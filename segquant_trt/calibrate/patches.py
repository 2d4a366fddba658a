"""Windows of a convolution's input: with them a convolution is a linear over patches."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from segquant_trt.calibrate.statistics import RowSample, stacked
from segquant_trt.graph.wiring import node_name
from segquant_trt.records import LinearSite

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]

_PATCH_BYTES_PER_BIN = 1 << 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The geometry of one convolution over D spatial axes, as its ONNX attributes give it.

    `begin` and `end`: zero padding in front of and behind every axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @classmethod
    def of(cls, node: onnx.NodeProto, kernel: tuple[int, ...]) -> Windows | None:
        """The geometry of a Conv node; None with automatic padding, which depends on the size."""
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            return None
        ones, rank = (1,) * len(kernel), len(kernel)
        pads = tuple(given.get("pads", (0,) * (2 * rank)))
        return cls(
            kernel=kernel,
            strides=tuple(given.get("strides", ones)),
            dilations=tuple(given.get("dilations", ones)),
            begin=pads[:rank],
            end=pads[rank:],
        )

    def positions(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Output size along every spatial axis for an input of the given sides."""
        geometry = zip(
            *(sides, self.begin, self.end, self.kernel, self.dilations, self.strides), strict=True
        )
        return tuple(
            (side + low + high - dilation * (taps - 1) - 1) // stride + 1
            for side, low, high, taps, dilation, stride in geometry
        )

    def at(self, x: Float, indices: Index) -> Float:
        """Patches float32[len(indices), C * taps] of x[B, C, ...] at flat output positions."""
        rank = len(self.kernel)
        outputs = self.positions(x.shape[2:])
        sample, *corner = np.unravel_index(indices, (len(x), *outputs))
        edges = [(0, 0), (0, 0), *zip(self.begin, self.end, strict=True)]
        padded = np.pad(x, edges) if any(self.begin) or any(self.end) else x
        taps = np.indices(self.kernel).reshape(rank, -1)  # in C order, as weights are stored
        where = tuple(
            corner[axis][:, None] * self.strides[axis] + taps[axis] * self.dilations[axis]
            for axis in range(rank)
        )
        index: tuple[slice | Index, ...] = (sample[:, None], slice(None), *where)
        windows = padded[index]  # [P, taps, C]
        return np.ascontiguousarray(np.moveaxis(windows, 2, 1)).reshape(len(indices), -1)


class PatchSampler:
    """A uniform sample of one convolution's patches per timestep bin."""

    def __init__(self, site: LinearSite, windows: Windows, *, bins: int, rows_per_bin: int) -> None:
        values = site.in_features * prod(site.kernel)
        rows = max(4, min(rows_per_bin, _PATCH_BYTES_PER_BIN // (4 * values)))
        random = np.random.default_rng(zlib.crc32(site.name.encode()) + 1)
        self._samples = [RowSample(rows=rows, random=random) for _ in range(bins)]
        self._windows = windows

    def update(self, x: Float, *, step_bin: int) -> None:
        """Add a batch: the convolution's input float32[B, C, ...], all of one bin."""
        count = len(x) * prod(self._windows.positions(x.shape[2:]))
        self._samples[step_bin].offer(count, lambda indices: self._windows.at(x, indices))

    def finish(self) -> Float:
        """float32[B, R, C * taps]; every bin must have been updated at least once."""
        return stacked(self._samples)


def patch_samplers(
    model: onnx.ModelProto, sites: list[LinearSite], *, bins: int, rows_per_bin: int
) -> dict[str, PatchSampler]:
    """A sampler for every convolution with several taps whose geometry is fixed."""
    nodes = {node_name(node): node for node in model.graph.node}
    found = {}
    for site in sites:
        if site.op == "Conv" and prod(site.kernel) > 1:
            windows = Windows.of(nodes[site.name], site.kernel)
            if windows is not None:
                found[site.name] = PatchSampler(site, windows, bins=bins, rows_per_bin=rows_per_bin)
    return found
