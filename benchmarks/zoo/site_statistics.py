"""What the inputs of a denoiser's linears and convolutions look like along real trajectories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segquant_trt.models.zoo import ZooLoop

SEEDS = range(20)


@dataclass(slots=True)
class Extent:
    """Running figures over every element of one site's input."""

    activation: str | None
    elements: int = 0
    negative: int = 0
    squares: float = 0.0
    maximum: float = 0.0
    rows: list[torch.Tensor] = field(default_factory=list)

    def add(self, values: torch.Tensor, channel_axis: int) -> None:
        self.elements += values.numel()
        self.negative += int((values < 0).sum())
        self.squares += float(values.double().square().sum())
        self.maximum = max(self.maximum, float(values.abs().max()))
        others = [axis for axis in range(values.ndim) if axis != channel_axis % values.ndim]
        self.rows.append(values.abs().amax(dim=others))

    def summary(self) -> dict[str, Any]:
        rms = (self.squares / self.elements) ** 0.5
        channels = torch.stack(self.rows).amax(dim=0)
        return {
            "activation": self.activation,
            "negative_share": round(self.negative / self.elements, 4),
            "max_over_rms": round(self.maximum / rms, 2),
            "channel_max_over_median": round(float(channels.max() / channels.median()), 2),
        }


def site_statistics(folder: Path) -> dict[str, dict[str, Any]]:
    """Per module: the activation before it, negative share, max/RMS, channel maximum/median.

    A FLUX single block's `proj_out` appears twice, once per segment of its input.
    """
    import diffusers

    loop = ZooLoop(folder)
    model = getattr(diffusers, loop.class_name).from_pretrained(folder / loop.component)
    model.eval().requires_grad_(False)
    extents: dict[str, Extent] = {}

    def denoise(inputs: Any) -> np.ndarray:
        with torch.inference_mode():
            return model(**{k: torch.from_numpy(np.array(v)) for k, v in inputs.items()})[0].numpy()

    with _observed(model, extents):
        loop.sample(denoise, seeds=SEEDS)
    return {name: extents[name].summary() for name in sorted(extents)}


@contextmanager
def _observed(model: nn.Module, extents: dict[str, Extent]) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            hook = _hook(model, name, extents)
            handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(model: nn.Module, name: str, extents: dict[str, Extent]) -> Any:
    def observe(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        values = arguments[0]
        axis = 1 if isinstance(module, nn.Conv2d) else -1
        for part, segment in _segments(name, values).items():
            extent = extents.setdefault(part, Extent(activation=activation_before(model, part)))
            extent.add(segment, axis)

    return observe


def _segments(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    if name.startswith("single_transformer_blocks.") and name.endswith(".proj_out"):
        width = values.shape[-1] // 5
        return {f"{name}[attn]": values[..., :width], f"{name}[mlp]": values[..., width:]}
    return {name: values}


def activation_before(model: nn.Module, name: str) -> str | None:
    """The function that made a site's input, or None where it is an ordinary activation."""
    if name.endswith("[mlp]"):
        return "gelu_tanh"
    if name.endswith(("ff.net.2", "ff_context.net.2")):
        first = model.get_submodule(name.removesuffix("2") + "0")
        return "geglu" if type(first).__name__ == "GEGLU" else "gelu_tanh"
    modulation = name.endswith(".linear") and "norm" in name
    embedding = name.endswith(("embedder.linear_2", "embedding.linear_2", "time_emb_proj"))
    convolution = ".resnets." in name and name.endswith(("conv1", "conv2"))
    if modulation or embedding or convolution or name == "conv_out":
        return "silu"
    return None
