"""The sites that are timed: sizes of small and of large denoisers, at a batch of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BATCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A linear `[rows, channels] x [channels, outputs]`, or a convolution of `kernel` x `kernel`.

    `rows` counts the output pixels of a convolution over the batch of two; `parts` are the sizes
    of a Concat in front, one part meaning none.
    """

    op: Literal["linear", "convolution"]
    rows: int
    outputs: int
    parts: tuple[int, ...]
    kernel: int = 1

    @property
    def channels(self) -> int:
        """Input channels."""
        return sum(self.parts)

    @property
    def label(self) -> str:
        """A short name that is a file name too."""
        parts = "+".join(map(str, self.parts))
        kind = self.op if self.op == "linear" else f"conv{self.kernel}"
        return f"{kind}-{self.rows}x{parts}x{self.outputs}"


SHAPES: tuple[Shape, ...] = (
    *(
        Shape(op="linear", rows=rows, parts=(channels,), outputs=outputs)
        for rows in (44, 512, 2048)
        for channels, outputs in ((96, 96), (96, 384), (384, 96))
    ),
    *(
        Shape(op="linear", rows=rows, parts=(channels,), outputs=outputs)
        for rows in (256, 2048)
        for channels, outputs in ((1152, 1152), (1152, 4608), (4608, 1152))
    ),
    Shape(op="linear", rows=44, parts=(96, 384), outputs=96),
    Shape(op="linear", rows=2048, parts=(1152, 4608), outputs=1152),
    Shape(op="convolution", rows=512, parts=(32,), outputs=32, kernel=3),
    Shape(op="convolution", rows=512, parts=(64,), outputs=64, kernel=3),
    Shape(op="convolution", rows=512, parts=(64, 32), outputs=64, kernel=3),
    Shape(op="convolution", rows=512, parts=(64, 32), outputs=64, kernel=1),
    Shape(op="convolution", rows=2048, parts=(320,), outputs=320, kernel=3),
    Shape(op="convolution", rows=2048, parts=(640,), outputs=640, kernel=1),
    Shape(op="convolution", rows=2048, parts=(640, 320), outputs=640, kernel=3),
    Shape(op="convolution", rows=512, parts=(1280,), outputs=1280, kernel=3),
)
