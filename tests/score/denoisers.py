"""A small denoiser of linears and convolutions, and its sites."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from segquant_trt.models import family_for
from segquant_trt.models.family import Family
from segquant_trt.records import LinearSite

FAMILY: Family = family_for("UNet2DConditionModel")
CHANNELS, SIDE = 3, 5


class Denoiser(nn.Module):
    """`conv`, then `fc` twice, shifted by `mod` of the timestep; a later step counts for more."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Linear(2, 6)
        self.mod = nn.Linear(6, 7)
        self.conv = nn.Conv2d(CHANNELS, 7, 3, padding=1)
        self.fc = nn.Linear(7, 7)
        self.idle = nn.Linear(7, 2)
        self.out = nn.Conv2d(7, CHANNELS, 1)
        self.requires_grad_(False)

    def forward(self, sample: Any, timestep: Any, return_dict: bool) -> Any:
        assert not return_dict
        step = timestep.float().reshape(-1, 1) / 1000
        features = self.embed(torch.cat([step, step.square()], dim=1))
        features += 0.1  # in place, as some embedders do
        h = self.conv(sample).permute(0, 2, 3, 1)
        h = torch.tanh(h + self.mod(torch.tanh(features))[:, None, None])
        h = torch.sin(2 * self.fc(torch.nn.functional.silu(self.fc(h))))
        self.idle(h)
        return ((0.2 + step[:, :, None, None]) * self.out(h.permute(0, 3, 1, 2)) + sample,)


def site(
    name: str,
    module: str | None = None,
    *,
    op: Literal["MatMul", "Conv"] = "MatMul",
    inputs: int = 7,
    outputs: int = 7,
    kernel: tuple[int, ...] = (),
    groups: int = 1,
    activation: str = "x",
    bias: bool = False,
) -> LinearSite:
    return LinearSite(
        name=name,
        op=op,
        module=module,
        role="body",
        activation=activation,
        weight=f"{name}.weight",
        weight_layout="NCHW" if op == "Conv" else "NK",
        bias=f"{name}.bias" if bias else None,
        bias_node=None,
        output=f"{name}/y",
        in_features=inputs,
        out_features=outputs,
        kernel=kernel,
        groups=groups,
        activation_rank=4 if op == "Conv" else 3,
    )


SITES = (
    site("embed", "embed", inputs=2, outputs=6),
    site("mod", "mod", inputs=6),
    site("conv", "conv", op="Conv", inputs=CHANNELS, kernel=(3, 3)),
    site("fc 0", "fc"),
    site("fc 1", "fc"),
    site("idle", "idle", outputs=2),
    site("out", "out", op="Conv", outputs=CHANNELS, kernel=(1, 1)),
    site("nameless"),
)
CALLS = {s.name: (s.module, 1 if s.name == "fc 1" else 0) for s in SITES if s.module is not None}


def inputs_of(seed: int, timesteps: list[float]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (len(timesteps), CHANNELS, SIDE, SIDE)
    return {
        "sample": random.standard_normal(shape, dtype=np.float32),
        "timestep": np.array(timesteps, dtype=np.float32),
    }


def run(module: nn.Module, inputs: dict[str, np.ndarray]) -> Any:
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    return module(**tensors, return_dict=False)[0]


class Changed:
    """While it is entered, call `index` of a part of `module` gives `change(output)`."""

    def __init__(self, module: nn.Module, part: str, index: int, change: Any) -> None:
        self._part = module.get_submodule(part)
        self._index, self._change = index, change

    def __enter__(self) -> None:
        self._seen = 0
        self._handle = self._part.register_forward_hook(self._hook)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _hook(self, _module: Any, _inputs: Any, output: Any) -> Any:
        self._seen += 1
        return self._change(output) if self._seen == self._index + 1 else output
