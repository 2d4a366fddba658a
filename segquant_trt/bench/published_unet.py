"""The work of UNet2DConditionModel by formula: residual blocks, transformers, resampling.

Covers the block types of Stable Diffusion and SDXL, whose feed-forward layers are GEGLU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segquant_trt.bench.work import Work

Config = Mapping[str, Any]
_TAPS = 9  # of a 3x3 convolution


@dataclass(slots=True)
class _Sum:
    """Multiply-accumulates so far; `width` is that of the timestep's embedding."""

    width: int
    text: int
    text_width: int
    coded: int = 0
    attention: int = 0
    other: int = 0

    def residual(self, inputs: int, outputs: int, cells: int) -> None:
        """Two convolutions, a projection of the timestep, and a 1x1 shortcut between widths."""
        self.coded += cells * _TAPS * (inputs * outputs + outputs * outputs)
        self.coded += cells * inputs * outputs if inputs != outputs else 0
        self.other += self.width * outputs

    def transformer(self, width: int, cells: int, layers: int) -> None:
        """Projections in and out, and per layer 18 d^2 per cell beside keys and values of text.

        Self-attention has 4 d^2, cross-attention's queries and output 2 d^2, GEGLU 8 + 4.
        """
        square = width * width
        self.coded += 2 * square * cells
        self.coded += layers * (18 * square * cells + 2 * width * self.text_width * self.text)
        self.attention += layers * 2 * cells * (cells + self.text) * width

    def resampling(self, width: int, cells: int) -> None:
        """A 3x3 convolution at `cells` outputs."""
        self.coded += cells * _TAPS * width * width


def unet_work(config: Config, lengths: Mapping[str, int]) -> Work:
    """One sample; `lengths` are those of `height` and `width` (latents) and `text`."""
    widths: Sequence[int] = config["block_out_channels"]
    cells = [
        (lengths["height"] >> level) * (lengths["width"] >> level) for level in range(len(widths))
    ]
    found = _Sum(4 * widths[0], lengths["text"], config["cross_attention_dim"])
    found.other += _TAPS * cells[0] * widths[0] * (config["in_channels"] + config["out_channels"])
    found.other += widths[0] * found.width + found.width**2
    added = config["projection_class_embeddings_input_dim"]
    if added is not None:
        found.other += added * found.width + found.width**2
    _down(found, config, cells)
    last, depth = widths[-1], _depths(config)[-1]
    found.residual(last, last, cells[-1])
    found.transformer(last, cells[-1], depth)
    found.residual(last, last, cells[-1])
    _up(found, config, cells)
    return Work(coded=found.coded, attention=found.attention, other=found.other)


def _down(found: _Sum, config: Config, cells: Sequence[int]) -> None:
    widths, kinds = config["block_out_channels"], config["down_block_types"]
    before = widths[0]
    for level, (width, kind, depth) in enumerate(zip(widths, kinds, _depths(config), strict=True)):
        for _ in range(config["layers_per_block"]):
            found.residual(before, width, cells[level])
            if kind.startswith("CrossAttn"):
                found.transformer(width, cells[level], depth)
            before = width
        if level + 1 < len(widths):
            found.resampling(width, cells[level + 1])


def _up(found: _Sum, config: Config, cells: Sequence[int]) -> None:
    """Every residual block also reads one of the tensors that the way down has left."""
    widths, kinds = config["block_out_channels"], config["up_block_types"]
    left = [widths[0]]
    for level, width in enumerate(widths):
        resampled = 1 if level + 1 < len(widths) else 0
        left += [width] * (config["layers_per_block"] + resampled)
    before = widths[-1]
    for kind, level in zip(kinds, reversed(range(len(widths))), strict=True):
        width, depth = widths[level], _depths(config)[level]
        for _ in range(config["layers_per_block"] + 1):
            found.residual(before + left.pop(), width, cells[level])
            if kind.startswith("CrossAttn"):
                found.transformer(width, cells[level], depth)
            before = width
        if level:
            found.resampling(width, cells[level - 1])


def _depths(config: Config) -> Sequence[int]:
    depth = config["transformer_layers_per_block"]
    return [depth] * len(config["block_out_channels"]) if isinstance(depth, int) else depth
