"""Tiny denoisers of twelve families, random but seeded.

Widths differ wherever a module mixes two streams, so that segment sizes tell which is which.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.golden import cross_attention, joint_attention
from tests.golden.example import Example

FAMILIES: dict[str, Callable[[], Example]] = {
    "sd15": cross_attention.sd15,
    "sdxl": cross_attention.sdxl,
    "sd3": joint_attention.sd3,
    "flux": joint_attention.flux,
    "flux2": joint_attention.flux2,
    "pixart": cross_attention.pixart,
    "sana": cross_attention.sana,
    "dit": cross_attention.dit,
    "hunyuan": cross_attention.hunyuan,
    "wan": cross_attention.wan,
    "cogvideox": joint_attention.cogvideox,
    "qwen": joint_attention.qwen,
}
