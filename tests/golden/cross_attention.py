"""UNets and transformers that attend to the text apart, or have none."""

from __future__ import annotations

import torch

from tests.golden.example import Example, normal, seeded, steps, text_mask


def sd15() -> Example:
    """UNet2DConditionModel as in Stable Diffusion 1.5."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return Example(
        module=seeded(
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
            "sample": normal(2, 4, 12, 16),
            "timestep": steps(),
            "encoder_hidden_states": normal(2, 7, 20),
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
        module=seeded(
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
            "sample": normal(2, 4, 12, 16),
            "timestep": steps(),
            "encoder_hidden_states": normal(2, 7, 28),
            "added_cond_kwargs": {
                "text_embeds": normal(2, 20),
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


def pixart() -> Example:
    """PixArtTransformer2DModel without size conditions (PixArt Sigma).

    Traced at another size than the configured one: at that size the token count is baked in.
    """
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    return Example(
        module=seeded(
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
            "hidden_states": normal(2, 4, 12, 16),
            "encoder_hidden_states": normal(2, 7, 28),
            "timestep": steps(),
            "encoder_attention_mask": text_mask(),
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
        module=seeded(
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
            "hidden_states": normal(2, 5, 6, 8),
            "encoder_hidden_states": normal(2, 7, 28),
            "timestep": steps(),
            "encoder_attention_mask": text_mask(),
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
        module=seeded(
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
            "hidden_states": normal(2, 4, 8, 8),
            "timestep": steps(),
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
        module=seeded(
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
            "hidden_states": normal(2, 4, 12, 16),
            "timestep": steps(),
            "encoder_hidden_states": normal(2, 7, 28),
            "text_embedding_mask": text_mask(),
            "encoder_hidden_states_t5": normal(2, 9, 24),
            "text_embedding_mask_t5": torch.ones(2, 9, dtype=torch.int64),
            "image_meta_size": torch.tensor([[96.0, 128.0, 96.0, 128.0, 0.0, 0.0]]).repeat(2, 1),
            "style": torch.zeros(2, dtype=torch.int64),
            "image_rotary_emb": (normal(48, 12), normal(48, 12)),
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
        module=seeded(
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
            "hidden_states": normal(2, 4, 3, 8, 12),
            "timestep": steps(),
            "encoder_hidden_states": normal(2, 7, 28),
        },
        axes={
            "hidden_states": {0: "batch", 2: "frames", 3: "height", 4: "width"},
            "timestep": {0: "batch"},
            "encoder_hidden_states": {0: "batch", 1: "text"},
        },
    )
