"""A module and inputs to trace it with; seeded values for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Axes = dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A module with inputs to trace it with.

    `inputs` are keyword arguments of `forward`; `axes` names the dynamic axes of each tensor by
    its flat dotted name; `constants` are arguments that are no tensors.
    """

    module: torch.nn.Module
    inputs: dict[str, Any]
    axes: dict[str, Axes]
    constants: dict[str, Any] = field(default_factory=dict)


def seeded(model: Callable[..., torch.nn.Module], **config: Any) -> torch.nn.Module:
    """A module in evaluation mode whose weights come from seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(**config).eval().requires_grad_(False)


def normal(*shape: int) -> torch.Tensor:
    """Normal values, seeded by the shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def steps() -> torch.Tensor:
    """Timesteps between 0 and 1000."""
    return torch.tensor([981.0, 41.0])


def fractions() -> torch.Tensor:
    """Timesteps between 0 and 1, as FLUX and Qwen take them."""
    return torch.tensor([0.98, 0.04])


def text_mask() -> torch.Tensor:
    """int64[2, 7]: the second text has four tokens."""
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    return mask
