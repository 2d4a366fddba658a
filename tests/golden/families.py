"""Tiny denoisers of twelve families, random but seeded, and how each one is traced.

Widths differ wherever a module mixes two streams, so that segment sizes tell which is which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.golden.real_rotary import use_real_rotary

Axes = dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A module with inputs to trace it with.

    `inputs` are keyword arguments of `forward`; `axes` names the dynamic axes of each tensor by
    its flat dotted name.
    """

    module: torch.nn.Module
    inputs: dict[str, Any]
    axes: dict[str, Axes]
    constants: dict[str, Any] = field(default_factory=dict)


def sd15() -> Example:
    """UNet2DConditionModel as in Stable Diffusion 1.5."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return Example(
        module=_seeded(
            UNet2DConditionModel,
            sample_size=12,
            block_out_channels=(24, 40),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=(2, 4),
            cross_attention_dim=20,
        ),
        inputs={
            "sample": _normal(2, 4, 12, 16),
            "timestep": _steps(),
            "encoder_hidden_states": _normal(2, 7, 20),
        },
        axes={
            "sample": {0: "batch", 2: "height", 3: "width"},
            "timestep": {0: "batch"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
        },
    )


def sdxl() -> Example:
    """UNet2DConditionModel as in Stable Diffusion XL."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return Example(
        module=_seeded(
            UNet2DConditionModel,
            sample_size=12,
            block_out_channels=(24, 40),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4),
            cross_attention_dim=28,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=6,
            projection_class_embeddings_input_dim=20 + 6 * 6,
        ),
        inputs={
            "sample": _normal(2, 4, 12, 16),
            "timestep": _steps(),
            "encoder_hidden_states": _normal(2, 7, 28),
            "added_cond_kwargs": {
                "text_embeds": _normal(2, 20),
                "time_ids": torch.tensor([[96.0, 128.0, 0.0, 0.0, 96.0, 128.0]]).repeat(2, 1),
            },
        },
        axes={
            "sample": {0: "batch", 2: "height", 3: "width"},
            "timestep": {0: "batch"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
            "added_cond_kwargs.text_embeds": {0: "batch"},
            "added_cond_kwargs.time_ids": {0: "batch"},
        },
    )


def sd3() -> Example:
    """SD3Transformer2DModel whose first block attends twice (SD 3.5 medium)."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    return Example(
        module=_seeded(
            SD3Transformer2DModel,
            sample_size=12,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=3,
            joint_attention_dim=28,
            caption_projection_dim=36,
            pooled_projection_dim=20,
            pos_embed_max_size=12,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        inputs={
            "hidden_states": _normal(2, 4, 12, 16),
            "encoder_hidden_states": _normal(2, 7, 28),
            "pooled_projections": _normal(2, 20),
            "timestep": _steps(),
        },
        axes={
            "hidden_states": {0: "batch", 2: "height", 3: "width"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
            "pooled_projections": {0: "batch"},
            "timestep": {0: "batch"},
        },
    )


def flux() -> Example:
    """FluxTransformer2DModel with guidance embedding (FLUX.1 dev)."""
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    return Example(
        module=_seeded(
            FluxTransformer2DModel,
            in_channels=12,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=12,
            num_attention_heads=3,
            joint_attention_dim=28,
            pooled_projection_dim=20,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 4),
        ),
        inputs={
            "hidden_states": _normal(2, 15, 12),
            "encoder_hidden_states": _normal(2, 7, 28),
            "pooled_projections": _normal(2, 20),
            "timestep": _fractions(),
            "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(3.0), torch.arange(5.0)),
            "txt_ids": torch.zeros(7, 3),
            "guidance": torch.full((2,), 3.5),
        },
        axes={
            "hidden_states": {0: "batch", 1: "tokens"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
            "pooled_projections": {0: "batch"},
            "timestep": {0: "batch"},
            "img_ids": {0: "tokens"},
            "txt_ids": {0: "text"},
            "guidance": {0: "batch"},
        },
    )


def flux2() -> Example:
    """Flux2Transformer2DModel with guidance embedding (FLUX.2 dev)."""
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

    return Example(
        module=_seeded(
            Flux2Transformer2DModel,
            in_channels=12,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=3,
            joint_attention_dim=28,
            timestep_guidance_channels=20,
            mlp_ratio=3.0,
            axes_dims_rope=(4, 4, 4, 4),
        ),
        inputs={
            "hidden_states": _normal(2, 15, 12),
            "encoder_hidden_states": _normal(2, 7, 28),
            "timestep": _fractions(),
            "img_ids": torch.cartesian_prod(
                torch.zeros(1), torch.arange(3.0), torch.arange(5.0), torch.zeros(1)
            ),
            "txt_ids": torch.zeros(7, 4),
            "guidance": torch.full((2,), 3.5),
        },
        axes={
            "hidden_states": {0: "batch", 1: "tokens"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
            "timestep": {0: "batch"},
            "img_ids": {0: "tokens"},
            "txt_ids": {0: "text"},
            "guidance": {0: "batch"},
        },
    )


def pixart() -> Example:
    """PixArtTransformer2DModel without size conditions (PixArt Sigma).

    Traced at another size than the configured one: at that size the token count is baked in.
    """
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    return Example(
        module=_seeded(
            PixArtTransformer2DModel,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=3,
            cross_attention_dim=36,
            caption_channels=28,
        ),
        inputs={
            "hidden_states": _normal(2, 4, 12, 16),
            "encoder_hidden_states": _normal(2, 7, 28),
            "timestep": _steps(),
            "encoder_attention_mask": _text_mask(),
        },
        axes={
            "hidden_states": {0: "batch", 2: "height", 3: "width"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
            "timestep": {0: "batch"},
            "encoder_attention_mask": {0: "batch", 1: "text"},
        },
    )


def sana() -> Example:
    """SanaTransformer2DModel: linear self-attention, gated convolutions."""
    from diffusers.models.transformers.sana_transformer import SanaTransformer2DModel

    return Example(
        module=_seeded(
            SanaTransformer2DModel,
            in_channels=5,
            out_channels=5,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=3,
            num_cross_attention_heads=2,
            cross_attention_head_dim=18,
            cross_attention_dim=36,
            caption_channels=28,
            mlp_ratio=2.5,
            sample_size=8,
            patch_size=1,
        ),
        inputs={
            "hidden_states": _normal(2, 5, 6, 8),
            "encoder_hidden_states": _normal(2, 7, 28),
            "timestep": _steps(),
            "encoder_attention_mask": _text_mask(),
        },
        axes={
            "hidden_states": {0: "batch", 2: "height", 3: "width"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
            "timestep": {0: "batch"},
            "encoder_attention_mask": {0: "batch", 1: "text"},
        },
    )


def dit() -> Example:
    """DiTTransformer2DModel; its forward folds tokens into a square, so sizes are fixed."""
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

    return Example(
        module=_seeded(
            DiTTransformer2DModel,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=3,
            num_embeds_ada_norm=11,
        ),
        inputs={
            "hidden_states": _normal(2, 4, 8, 8),
            "timestep": _steps(),
            "class_labels": torch.tensor([3, 11]),
        },
        axes={
            "hidden_states": {0: "batch"},
            "timestep": {0: "batch"},
            "class_labels": {0: "batch"},
        },
    )


def hunyuan() -> Example:
    """HunyuanDiT2DModel with style and size conditions (version 1.1); text lengths are fixed."""
    from diffusers.models.transformers.hunyuan_transformer_2d import HunyuanDiT2DModel

    return Example(
        module=_seeded(
            HunyuanDiT2DModel,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=36,
            num_layers=4,
            attention_head_dim=12,
            num_attention_heads=3,
            cross_attention_dim=28,
            cross_attention_dim_t5=24,
            pooled_projection_dim=20,
            text_len=7,
            text_len_t5=9,
        ),
        inputs={
            "hidden_states": _normal(2, 4, 12, 16),
            "timestep": _steps(),
            "encoder_hidden_states": _normal(2, 7, 28),
            "text_embedding_mask": _text_mask(),
            "encoder_hidden_states_t5": _normal(2, 9, 24),
            "text_embedding_mask_t5": torch.ones(2, 9, dtype=torch.int64),
            "image_meta_size": torch.tensor([[96.0, 128.0, 96.0, 128.0, 0.0, 0.0]]).repeat(2, 1),
            "style": torch.zeros(2, dtype=torch.int64),
            "image_rotary_emb": (_normal(48, 12), _normal(48, 12)),
        },
        axes={
            "hidden_states": {0: "batch", 2: "height", 3: "width"},
            "timestep": {0: "batch"},
            "encoder_hidden_states": {0: "batch"},
            "text_embedding_mask": {0: "batch"},
            "encoder_hidden_states_t5": {0: "batch"},
            "text_embedding_mask_t5": {0: "batch"},
            "image_meta_size": {0: "batch"},
            "style": {0: "batch"},
            "image_rotary_emb.0": {0: "tokens"},
            "image_rotary_emb.1": {0: "tokens"},
        },
    )


def wan() -> Example:
    """WanTransformer3DModel for text to video."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return Example(
        module=_seeded(
            WanTransformer3DModel,
            patch_size=(1, 2, 2),
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=3,
            text_dim=28,
            freq_dim=20,
            ffn_dim=88,
            rope_max_seq_len=32,
        ),
        inputs={
            "hidden_states": _normal(2, 4, 3, 8, 12),
            "timestep": _steps(),
            "encoder_hidden_states": _normal(2, 7, 28),
        },
        axes={
            "hidden_states": {0: "batch", 2: "frames", 3: "height", 4: "width"},
            "timestep": {0: "batch"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
        },
    )


def cogvideox() -> Example:
    """CogVideoXTransformer3DModel with sine positions (2B); only the batch is dynamic."""
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    return Example(
        module=_seeded(
            CogVideoXTransformer3DModel,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=3,
            time_embed_dim=20,
            text_embed_dim=28,
            sample_width=12,
            sample_height=8,
            sample_frames=9,
            max_text_seq_length=7,
        ),
        inputs={
            "hidden_states": _normal(2, 3, 4, 8, 12),
            "encoder_hidden_states": _normal(2, 7, 28),
            "timestep": _steps(),
        },
        axes={
            "hidden_states": {0: "batch"},
            "encoder_hidden_states": {0: "batch"},
            "timestep": {0: "batch"},
        },
    )


def qwen() -> Example:
    """QwenImageTransformer2DModel with real rotary embeddings: ONNX has no complex numbers."""
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

    module = _seeded(
        QwenImageTransformer2DModel,
        patch_size=2,
        in_channels=12,
        out_channels=3,
        num_layers=2,
        attention_head_dim=12,
        num_attention_heads=3,
        joint_attention_dim=28,
        axes_dims_rope=(4, 4, 4),
    )
    img_shapes = [[(1, 3, 5)], [(1, 3, 5)]]
    use_real_rotary(module, img_shapes, text_length=7)
    return Example(
        module=module,
        inputs={
            "hidden_states": _normal(2, 15, 12),
            "encoder_hidden_states": _normal(2, 7, 28),
            "encoder_hidden_states_mask": _text_mask().bool(),
            "timestep": _fractions(),
        },
        axes={
            "hidden_states": {0: "batch"},
            "encoder_hidden_states": {0: "batch"},
            "encoder_hidden_states_mask": {0: "batch"},
            "timestep": {0: "batch"},
        },
        constants={"img_shapes": img_shapes},
    )


FAMILIES: dict[str, Callable[[], Example]] = {
    "sd15": sd15,
    "sdxl": sdxl,
    "sd3": sd3,
    "flux": flux,
    "flux2": flux2,
    "pixart": pixart,
    "sana": sana,
    "dit": dit,
    "hunyuan": hunyuan,
    "wan": wan,
    "cogvideox": cogvideox,
    "qwen": qwen,
}


def _seeded(model: Callable[..., torch.nn.Module], **config: Any) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(**config).eval().requires_grad_(False)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _steps() -> torch.Tensor:
    return torch.tensor([981.0, 41.0])


def _fractions() -> torch.Tensor:
    return torch.tensor([0.98, 0.04])


def _text_mask() -> torch.Tensor:
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    return mask
