"""UNet2DConditionModel: Stable Diffusion 1.x, 2.x, SDXL and their relatives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from segquant_trt.errors import SegQuantError
from segquant_trt.models.family import BATCH, OUTPUT, Config, Family
from segquant_trt.records import AxisRange, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TEXT_EMBEDS = "added_cond_kwargs.text_embeds"
_TIME_IDS = "added_cond_kwargs.time_ids"


class UNet2DCondition(Family):
    """Inputs: sample, timestep, encoder_hidden_states, and what the configuration adds."""

    name = "unet2d_condition"
    class_name = "UNet2DConditionModel"
    module = "diffusers.models.unets.unet_2d_condition"
    component = "unet"
    timestep_range = (0.0, 999.0)
    defaults: ClassVar[Mapping[str, Any]] = {
        "sample_size": None,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "cross_attention_dim": 1280,
        "transformer_layers_per_block": 1,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "attention_head_dim": 8,
        "num_attention_heads": None,
        "class_embed_type": None,
        "addition_embed_type": None,
        "addition_time_embed_dim": None,
        "num_class_embeds": None,
        "time_embedding_dim": None,
        "time_cond_proj_dim": None,
        "projection_class_embeddings_input_dim": None,
    }

    def sizes(self, config: Config) -> tuple[AxisRange, ...]:
        multiple = 2 ** (len(config["block_out_channels"]) - 1)
        size = config["sample_size"] or 64
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        limit = multiple * max(256, 4 * height, 4 * width)
        edges = (("height", height), ("width", width))
        return (
            BATCH,
            *(
                AxisRange(
                    name=name,
                    minimum=2 * multiple,
                    typical=max(-(-length // multiple), 2) * multiple,
                    maximum=limit,
                    multiple=multiple,
                )
                for name, length in edges
            ),
            AxisRange(name="text", minimum=1, typical=77, maximum=1024),
        )

    def inputs(self, config: Config) -> tuple[TensorSpec, ...]:
        specs = [
            _floats("sample", "batch", config["in_channels"], "height", "width"),
            _floats("timestep", "batch"),
            _floats("encoder_hidden_states", "batch", "text", _text_width(config)),
        ]
        specs += _class_labels(config)
        if config["time_cond_proj_dim"]:
            specs.append(_floats("timestep_cond", "batch", config["time_cond_proj_dim"]))
        specs += _added_conditions(config)
        return tuple(specs)

    def output(self, config: Config) -> TensorSpec:
        return _floats(OUTPUT, "batch", config["out_channels"], "height", "width")

    def prompt_inputs(self, config: Config) -> tuple[str, ...]:
        names = ("encoder_hidden_states", "class_labels", _TEXT_EMBEDS, _TIME_IDS)
        present = {spec.name for spec in self.inputs(config)}
        return tuple(name for name in names if name in present)

    def cut(self, config: Config) -> dict[str, Any]:
        """One layer per resolution (so two resnets going up); widths stay multiples of groups."""
        channels = config["block_out_channels"]
        heads = config["num_attention_heads"] or config["attention_head_dim"]
        per_level = heads if isinstance(heads, (list, tuple)) else [heads] * len(channels)
        unit = config["norm_num_groups"] or 1
        smallest = [math.lcm(unit, count) for count in per_level]
        return dict(config) | {
            "layers_per_block": 1,
            "block_out_channels": [min(a, b) for a, b in zip(smallest, channels, strict=True)],
            "transformer_layers_per_block": _capped(config["transformer_layers_per_block"], 2),
            "reverse_transformer_layers_per_block": None,
        }

    def _example(
        self,
        spec: TensorSpec,
        config: Config,
        lengths: Mapping[str, int],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        import numpy as np

        batch = lengths["batch"]
        if spec.name == _TIME_IDS:
            pixels = [8 * lengths["height"], 8 * lengths["width"]]
            row = [*pixels, 0, 0, *pixels][: int(spec.shape[1])]
            return np.tile(np.array(row, dtype=np.float32), (batch, 1))
        if spec.name == "class_labels" and spec.dtype == "int64":
            return rng.integers(0, config["num_class_embeds"], batch)
        return super()._example(spec, config, lengths, rng)


def _floats(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def _text_width(config: Config) -> int:
    width = config["encoder_hid_dim"] or config["cross_attention_dim"]
    return int(width[0] if isinstance(width, (list, tuple)) else width)


def _class_labels(config: Config) -> list[TensorSpec]:
    kind = config["class_embed_type"]
    if kind is None:
        if config["num_class_embeds"] is None:
            return []
        return [TensorSpec(name="class_labels", dtype="int64", shape=("batch",))]
    if kind == "timestep":
        return [_floats("class_labels", "batch")]
    if kind == "identity":
        width = config["time_embedding_dim"] or 4 * config["block_out_channels"][0]
    elif kind in ("projection", "simple_projection"):
        width = config["projection_class_embeddings_input_dim"]
    else:
        raise _unsupported(
            "class_embed_type", kind, "null, timestep, identity, projection, simple_projection"
        )
    return [_floats("class_labels", "batch", width)]


def _added_conditions(config: Config) -> list[TensorSpec]:
    hidden = config["encoder_hid_dim_type"]
    if hidden not in (None, "text_proj"):
        raise _unsupported("encoder_hid_dim_type", hidden, "null, text_proj")
    kind = config["addition_embed_type"]
    if kind in (None, "text"):
        return []
    if kind != "text_time":
        raise _unsupported("addition_embed_type", kind, "null, text, text_time")
    total = config["projection_class_embeddings_input_dim"]
    width = config["addition_time_embed_dim"]
    # SDXL's base model takes six size numbers; its refiner five, told by its single text encoder.
    count = 5 if total - 5 * width == _text_width(config) else 6
    return [
        _floats(_TEXT_EMBEDS, "batch", total - count * width),
        _floats(_TIME_IDS, "batch", count),
    ]


def _unsupported(key: str, value: object, allowed: str) -> SegQuantError:
    return SegQuantError(
        f"UNet2DConditionModel with {key} = {value!r} is not supported; supported: {allowed}",
        hint="only text-conditioned UNets can be exported; choose another model",
    )


def _capped(value: Any, limit: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [_capped(item, limit) for item in value]
    return min(value, limit)
