"""QwenImage's complex rotary embedding in real arithmetic: the same numbers, and exportable."""

from __future__ import annotations

from typing import Any

import torch


class RealRope(torch.nn.Module):
    """Cosines and sines of the complex numbers that `QwenEmbedRope` returns at one size."""

    def __init__(self, rope: Any, img_shapes: Any, text_length: int) -> None:
        super().__init__()
        for name, turns in zip(
            ("image", "text"), rope(img_shapes, max_txt_seq_len=text_length), strict=True
        ):
            self.register_buffer(f"{name}_cos", turns.real.clone(), persistent=False)
            self.register_buffer(f"{name}_sin", turns.imag.clone(), persistent=False)

    def forward(self, *_: Any, **__: Any) -> Any:
        return (self.image_cos, self.image_sin), (self.text_cos, self.text_sin)


def rotate(x: torch.Tensor, angles: Any, **_: Any) -> torch.Tensor:
    """Multiply pairs of the last axis of `x[B, S, H, D]` by `cos + i sin`, each `[S, D/2]`."""
    cos, sin = (part.unsqueeze(1) for part in angles)
    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(turned, dim=-1).flatten(3).type_as(x)


def use_real_rotary(module: Any, img_shapes: Any, text_length: int) -> None:
    """Let a QwenImageTransformer2DModel rotate without complex numbers, at one size.

    The processor finds its rotation function in its module, which is changed for good.
    """
    from diffusers.models.transformers import transformer_qwenimage

    module.pos_embed = RealRope(module.pos_embed, img_shapes, text_length)
    transformer_qwenimage.apply_rotary_emb_qwen = rotate
