"""Tiny pipelines with random weights in diffusers' own folder layout, made without a network."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

TinyKind = Literal["sd15", "sdxl", "sd3", "flux"]
TINY_KINDS: tuple[TinyKind, ...] = ("sd15", "sdxl", "sd3", "flux")

_TEXT_WIDTH = 32
_UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 8,
    "cross_attention_dim": _TEXT_WIDTH,
}
_CONFIGS: dict[TinyKind, dict[str, Any]] = {
    "sd15": _UNET,
    "sdxl": _UNET
    | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 2 * _TEXT_WIDTH,
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + _TEXT_WIDTH,
    },
    "sd3": {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 3,
        "joint_attention_dim": 2 * _TEXT_WIDTH,
        "caption_projection_dim": 48,
        "pooled_projection_dim": 2 * _TEXT_WIDTH,
        "pos_embed_max_size": 24,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
    },
    "flux": {
        "patch_size": 1,
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 3,
        "joint_attention_dim": _TEXT_WIDTH,
        "pooled_projection_dim": _TEXT_WIDTH,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    },
}
_FOLDER_OF: dict[TinyKind, str] = {
    "sd15": "unet",
    "sdxl": "unet",
    "sd3": "transformer",
    "flux": "transformer",
}


def tiny_denoiser(kind: TinyKind, *, seed: int = 0, **config: Any) -> Any:
    """A diffusers denoiser module in float32; `config` overrides constructor arguments."""
    import torch
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    classes: dict[TinyKind, Any] = {
        "sd15": UNet2DConditionModel,
        "sdxl": UNet2DConditionModel,
        "sd3": SD3Transformer2DModel,
        "flux": FluxTransformer2DModel,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return classes[kind](**(_CONFIGS[kind] | config)).eval()


def make_tiny_denoiser(
    kind: TinyKind,
    folder: Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    seed: int = 0,
    max_shard_size: str = "10GB",
    **config: Any,
) -> Path:
    """Write a denoiser folder (config.json and safetensors) and return it."""
    import torch

    model = tiny_denoiser(kind, seed=seed, **config).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def make_tiny_pipeline(
    kind: TinyKind,
    folder: Path,
    *,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    seed: int = 0,
) -> Path:
    """Write a whole pipeline folder (model_index.json, denoiser, encoders, VAE) and return it."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = _pipeline(kind, tiny_denoiser(kind, seed=seed))
    pipeline.to(getattr(torch, dtype))
    pipeline.save_pretrained(folder)
    return folder


def denoiser_folder(kind: TinyKind, pipeline_folder: Path) -> Path:
    """Where the denoiser of a pipeline folder is."""
    return pipeline_folder / _FOLDER_OF[kind]


def _pipeline(kind: TinyKind, denoiser: Any) -> Any:
    import diffusers

    clip, vae = _clip_tokenizer(), _vae()
    if kind == "sd15":
        return diffusers.StableDiffusionPipeline(
            vae=vae,
            text_encoder=_clip_encoder(clip, projection=False),
            tokenizer=clip,
            unet=denoiser,
            scheduler=diffusers.DDIMScheduler(
                beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    if kind == "sdxl":
        return diffusers.StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=_clip_encoder(clip, projection=False),
            text_encoder_2=_clip_encoder(clip, projection=True),
            tokenizer=clip,
            tokenizer_2=_clip_tokenizer(),
            unet=denoiser,
            scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        )
    if kind == "sd3":
        return diffusers.StableDiffusion3Pipeline(
            transformer=denoiser,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae,
            text_encoder=_clip_encoder(clip, projection=True),
            tokenizer=clip,
            text_encoder_2=_clip_encoder(clip, projection=True),
            tokenizer_2=_clip_tokenizer(),
            text_encoder_3=_t5_encoder(2 * _TEXT_WIDTH),
            tokenizer_3=_t5_tokenizer(),
        )
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=_clip_encoder(clip, projection=False),
        tokenizer=clip,
        text_encoder_2=_t5_encoder(_TEXT_WIDTH),
        tokenizer_2=_t5_tokenizer(),
        transformer=denoiser,
    )


def _clip_tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    pieces = [
        *letters,
        *(letter + "</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _clip_encoder(tokenizer: Any, *, projection: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=37,
        projection_dim=_TEXT_WIDTH,
        num_attention_heads=4,
        num_hidden_layers=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    letters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    vocab = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")]
    vocab += [(letter, -2.0) for letter in letters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)


def _t5_encoder(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=128,
        d_model=width,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        shift_factor=0.1,
        scaling_factor=0.9,
    ).eval()
