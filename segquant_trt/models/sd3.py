"""SD3Transformer2DModel: Stable Diffusion 3 and 3.5, with or without dual attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from segquant_trt.models.family import BATCH, OUTPUT, Config, Family
from segquant_trt.records import AxisRange, TensorSpec


class SD3(Family):
    """Inputs: hidden_states, encoder_hidden_states, pooled_projections, timestep."""

    name = "sd3"
    class_name = "SD3Transformer2DModel"
    module = "diffusers.models.transformers.transformer_sd3"
    component = "transformer"
    defaults: ClassVar[Mapping[str, Any]] = {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 18,
        "attention_head_dim": 64,
        "num_attention_heads": 18,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1152,
        "pooled_projection_dim": 2048,
        "out_channels": 16,
        "pos_embed_max_size": 96,
        "dual_attention_layers": [],
        "qk_norm": None,
    }

    def sizes(self, config: Config) -> tuple[AxisRange, ...]:
        patch, limit = config["patch_size"], config["pos_embed_max_size"]
        edge = {
            "minimum": 2 * patch,
            "typical": max(config["sample_size"] // patch, 2) * patch,
            "maximum": limit * patch,
            "multiple": patch,
        }
        return (
            BATCH,
            AxisRange(name="height", **edge),
            AxisRange(name="width", **edge),
            AxisRange(name="text", minimum=1, typical=333, maximum=1024),
        )

    def inputs(self, config: Config) -> tuple[TensorSpec, ...]:
        shapes: dict[str, tuple[int | str, ...]] = {
            "hidden_states": ("batch", config["in_channels"], "height", "width"),
            "encoder_hidden_states": ("batch", "text", config["joint_attention_dim"]),
            "pooled_projections": ("batch", config["pooled_projection_dim"]),
            "timestep": ("batch",),
        }
        return tuple(
            TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()
        )

    def output(self, config: Config) -> TensorSpec:
        channels = config["out_channels"] or config["in_channels"]
        return TensorSpec(
            name=OUTPUT, dtype="float32", shape=("batch", channels, "height", "width")
        )

    def prompt_inputs(self, config: Config) -> tuple[str, ...]:
        return ("encoder_hidden_states", "pooled_projections")

    def cut(self, config: Config) -> dict[str, Any]:
        """Two blocks of each kind present (with dual attention, without, the last one)."""
        dual = set(config["dual_attention_layers"] or ())
        layers = config["num_layers"]
        with_dual = [i for i in range(layers) if i in dual][:2]
        plain = [i for i in range(layers) if i not in dual][-2:]
        heads = min(2, config["num_attention_heads"])
        return dict(config) | {
            "num_layers": len(with_dual) + len(plain),
            "dual_attention_layers": list(range(len(with_dual))),
            "num_attention_heads": heads,
            "caption_projection_dim": heads * config["attention_head_dim"],
        }
