"""The work of published models at the size that they were made for, by formula.

The small models that ship stand for these; at their own size attention is next to nothing, and
their ceiling says little about the model that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segquant_trt.bench.published_unet import unet_work
from segquant_trt.bench.work import Work

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published configuration, and how its work is counted for one sample of its size."""

    name: str
    class_name: str
    config: Config
    lengths: Mapping[str, int]
    count: Callable[[Config, Mapping[str, int]], Work]

    def work(self) -> Work:
        """Multiply-accumulates of one sample."""
        return self.count(self.config, self.lengths)


def flux_work(config: Config, lengths: Mapping[str, int]) -> Work:
    """FluxTransformer2DModel for one sample; `lengths` are those of `tokens` and `text`.

    A double block has its 12 d^2 per token in each stream, a single block 12 d^2 for all tokens
    (queries, keys, values, feed-forward, one projection of 5 d); both attend jointly.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    double, single = config["num_layers"], config["num_single_layers"]
    tokens = lengths["tokens"] + lengths["text"]
    square = width * width
    embedded = (
        lengths["tokens"] * config["in_channels"]
        + lengths["text"] * config["joint_attention_dim"]
        + config["pooled_projection_dim"]
        + 256 * (2 if config["guidance_embeds"] else 1)
    )
    modulation = square * (12 * double + 3 * single + 2)
    modulation += square * (3 if config["guidance_embeds"] else 2)  # second layers of embedders
    final = lengths["tokens"] * (config["out_channels"] or config["in_channels"])
    return Work(
        coded=(double + single) * 12 * square * tokens,
        attention=(double + single) * 2 * tokens * tokens * width,
        other=width * (embedded + final) + modulation,
    )


def sd3_work(config: Config, lengths: Mapping[str, int]) -> Work:
    """SD3Transformer2DModel for one sample; `lengths` of `height`, `width` (latents) and `text`.

    The last block throws its text stream away after attention. A block of dual attention lets the
    image attend to itself once more, with its own 4 d^2 per token.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    layers, dual = config["num_layers"], len(config["dual_attention_layers"])
    patch = config["patch_size"]
    image = (lengths["height"] // patch) * (lengths["width"] // patch)
    text, tokens = lengths["text"], image + lengths["text"]
    square = width * width
    per_image = layers * 12 + dual * 4
    per_text = (layers - 1) * 12 + 3
    channels = patch * patch
    embedded = (
        image * config["in_channels"] * channels
        + text * config["joint_attention_dim"]
        + config["pooled_projection_dim"]
        + 256
    )
    modulation = square * (6 * layers + 3 * dual + 6 * (layers - 1) + 2 + 2 + 2)
    final = image * channels * config["out_channels"]
    return Work(
        coded=square * (per_image * image + per_text * text),
        attention=2 * width * (layers * tokens * tokens + dual * image * image),
        other=width * (embedded + final) + modulation,
    )


_FLUX_1_DEV: Config = {
    "in_channels": 64,
    "out_channels": None,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}
_SD3_5_LARGE: Config = {
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 38,
    "attention_head_dim": 64,
    "num_attention_heads": 38,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "dual_attention_layers": (),
}
_SDXL: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "projection_class_embeddings_input_dim": 2816,
}

PUBLISHED: tuple[Published, ...] = (
    Published(
        name="FLUX.1-dev at 1024x1024",
        class_name="FluxTransformer2DModel",
        config=_FLUX_1_DEV,
        lengths={"tokens": 4096, "text": 512},
        count=flux_work,
    ),
    Published(
        name="SD3.5 Large at 1024x1024",
        class_name="SD3Transformer2DModel",
        config=_SD3_5_LARGE,
        lengths={"height": 128, "width": 128, "text": 333},
        count=sd3_work,
    ),
    Published(
        name="SDXL at 1024x1024",
        class_name="UNet2DConditionModel",
        config=_SDXL,
        lengths={"height": 128, "width": 128, "text": 77},
        count=unet_work,
    ),
)


def published_for(class_name: str | None) -> Published | None:
    """The published model of a denoiser class; None where no formula is here."""
    return next((found for found in PUBLISHED if found.class_name == class_name), None)
