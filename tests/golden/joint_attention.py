"""Transformers in which text and image tokens attend together."""

from __future__ import annotations

import torch

from tests.golden.example import Example, fractions, normal, seeded, steps, text_mask
from tests.golden.real_rotary import use_real_rotary


def sd3() -> Example:
    """SD3Transformer2DModel whose first block attends twice (SD 3.5 medium)."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    return Example(
        module=seeded(
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
            "hidden_states": normal(2, 4, 12, 16),
            "encoder_hidden_states": normal(2, 7, 28),
            "pooled_projections": normal(2, 20),
            "timestep": steps(),
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
        module=seeded(
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
            "hidden_states": normal(2, 15, 12),
            "encoder_hidden_states": normal(2, 7, 28),
            "pooled_projections": normal(2, 20),
            "timestep": fractions(),
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
        module=seeded(
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
            "hidden_states": normal(2, 15, 12),
            "encoder_hidden_states": normal(2, 7, 28),
            "timestep": fractions(),
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


def cogvideox() -> Example:
    """CogVideoXTransformer3DModel with sine positions (2B); only the batch is dynamic."""
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

    return Example(
        module=seeded(
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
            "hidden_states": normal(2, 3, 4, 8, 12),
            "encoder_hidden_states": normal(2, 7, 28),
            "timestep": steps(),
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

    module = seeded(
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
            "hidden_states": normal(2, 15, 12),
            "encoder_hidden_states": normal(2, 7, 28),
            "encoder_hidden_states_mask": text_mask().bool(),
            "timestep": fractions(),
        },
        axes={
            "hidden_states": {0: "batch"},
            "encoder_hidden_states": {0: "batch"},
            "encoder_hidden_states_mask": {0: "batch"},
            "timestep": {0: "batch"},
        },
        constants={"img_shapes": img_shapes},
    )
