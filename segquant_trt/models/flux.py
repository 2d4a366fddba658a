"""FluxTransformer2DModel: FLUX.1 dev (with guidance embedding) and schnell (without)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from segquant_trt.models.family import BATCH, OUTPUT, Config, Family, concrete_shape
from segquant_trt.records import AxisRange, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Flux(Family):
    """Inputs: packed latents, text, pooled text, timestep in 0..1, positions, guidance.

    `img_ids` and `txt_ids` have no batch axis: one set of positions serves every sample.
    """

    name = "flux"
    class_name = "FluxTransformer2DModel"
    module = "diffusers.models.transformers.transformer_flux"
    component = "transformer"
    timestep_range = (0.0, 1.0)
    defaults: ClassVar[Mapping[str, Any]] = {
        "patch_size": 1,
        "in_channels": 64,
        "out_channels": None,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": False,
        "axes_dims_rope": [16, 56, 56],
    }

    def sizes(self, config: Config) -> tuple[AxisRange, ...]:
        return (
            BATCH,
            AxisRange(name="tokens", minimum=2, typical=4096, maximum=16384),
            AxisRange(name="text", minimum=1, typical=512, maximum=1024),
        )

    def inputs(self, config: Config) -> tuple[TensorSpec, ...]:
        positions = len(config["axes_dims_rope"])
        shapes: dict[str, tuple[int | str, ...]] = {
            "hidden_states": ("batch", "tokens", config["in_channels"]),
            "encoder_hidden_states": ("batch", "text", config["joint_attention_dim"]),
            "pooled_projections": ("batch", config["pooled_projection_dim"]),
            "timestep": ("batch",),
            "img_ids": ("tokens", positions),
            "txt_ids": ("text", positions),
        }
        if config["guidance_embeds"]:
            shapes["guidance"] = ("batch",)
        return tuple(
            TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()
        )

    def output(self, config: Config) -> TensorSpec:
        channels = config["out_channels"] or config["in_channels"]
        channels *= config["patch_size"] ** 2
        return TensorSpec(name=OUTPUT, dtype="float32", shape=("batch", "tokens", channels))

    def prompt_inputs(self, config: Config) -> tuple[str, ...]:
        return ("encoder_hidden_states", "pooled_projections", "txt_ids")

    def cut(self, config: Config) -> dict[str, Any]:
        return dict(config) | {
            "num_layers": min(2, config["num_layers"]),
            "num_single_layers": min(2, config["num_single_layers"]),
            "num_attention_heads": min(2, config["num_attention_heads"]),
        }

    def _example(
        self,
        spec: TensorSpec,
        config: Config,
        lengths: Mapping[str, int],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        import numpy as np

        shape = concrete_shape(spec, lengths)
        if spec.name == "txt_ids":
            return np.zeros(shape, dtype=np.float32)
        if spec.name == "img_ids":
            return _grid_positions(*shape)
        if spec.name == "guidance":
            return np.full(shape, 3.5, dtype=np.float32)
        return super()._example(spec, config, lengths, rng)


def _grid_positions(tokens: int, positions: int) -> npt.NDArray[np.float32]:
    """Row and column of every token on the squarest grid of `tokens` cells: float32[tokens, n]."""
    import numpy as np

    rows = next(n for n in range(int(tokens**0.5), 0, -1) if tokens % n == 0)
    ids = np.zeros((tokens, positions), dtype=np.float32)
    ids[:, -2], ids[:, -1] = np.divmod(np.arange(tokens), tokens // rows)
    return ids
