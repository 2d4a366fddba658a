"""The three denoisers' architectures and their conditioning table."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

CLASSES = 10
NULL_CLASS = 10
TOKENS = 6
TOKEN_WIDTH = 64
POOLED_WIDTH = 64
DEAD_UNITS = 2
"""Hidden units of each feed-forward layer that stay disconnected: the outlier twins use them."""


class Conditioning(nn.Module):
    """A learned prompt per class, the null prompt last: tokens [11, 6, 64] and pooled [11, 64].

    Token 0 is the same constant vector in every prompt, with two dominant channels, as the
    begin-of-text token of CLIP and T5 has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(CLASSES + 1, TOKENS, TOKEN_WIDTH))
        self.pooled = nn.Parameter(torch.randn(CLASSES + 1, POOLED_WIDTH))
        start = 0.1 * torch.randn(TOKEN_WIDTH)
        start[7], start[41] = 8.0, -5.0
        self.register_buffer("start", start)

    def forward(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.start.expand(len(labels), 1, TOKEN_WIDTH)
        return torch.cat([start, self.tokens[labels, 1:]], dim=1), self.pooled[labels]


def build(name: str) -> nn.Module:
    """The freshly initialised diffusers model of a name in `CONFIGS`."""
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

    classes: dict[str, Any] = {
        "digits-unet": UNet2DConditionModel,
        "digits-mmdit": SD3Transformer2DModel,
        "digits-flux": FluxTransformer2DModel,
    }
    return classes[name](**CONFIGS[name])


CONFIGS: dict[str, dict[str, Any]] = {
    "digits-unet": {
        "sample_size": 16,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": TOKEN_WIDTH,
        "attention_head_dim": (2, 4),  # diffusers reads the UNet's value as the number of heads
        "norm_num_groups": 8,
    },
    "digits-mmdit": {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 6,
        "attention_head_dim": 24,
        "num_attention_heads": 4,
        "joint_attention_dim": TOKEN_WIDTH,
        "caption_projection_dim": 96,
        "pooled_projection_dim": POOLED_WIDTH,
        "pos_embed_max_size": 16,
        "qk_norm": "rms_norm",
    },
    "digits-flux": {
        "patch_size": 1,
        "in_channels": 16,
        "num_layers": 3,
        "num_single_layers": 6,
        "attention_head_dim": 24,
        "num_attention_heads": 4,
        "joint_attention_dim": TOKEN_WIDTH,
        "pooled_projection_dim": POOLED_WIDTH,
        "guidance_embeds": False,
        "axes_dims_rope": (8, 8, 8),
    },
}


def disconnect_dead_units(name: str, model: nn.Module) -> None:
    """Zero the outgoing weights of the reserved hidden units (the last ones of each layer)."""
    with torch.no_grad():
        for path, weight in model.named_parameters():
            single_block = name == "digits-flux" and path.startswith("single_transformer_blocks.")
            if path.endswith("net.2.weight") or (single_block and path.endswith("proj_out.weight")):
                weight[:, -DEAD_UNITS:] = 0.0
