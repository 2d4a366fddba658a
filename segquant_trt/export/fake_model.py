"""A denoiser without weights: parameters are fake tensors, nothing of their size is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segquant_trt.models.family import Family
from segquant_trt.models.torch_module import parameters_on_meta


def fake_module(family: Family, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The family's module in float32 on fake tensors, and its FakeTensorMode.

    Buffers that a checkpoint does not store keep their real values: the graph needs them.

    Raises:
        SegQuantError: the configuration describes no such module.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with torch.device("meta"):
        module = family.build(config)
    if any(map(_has_computed_tensors, module.modules())):
        # Only then are buffers worth computing: SD3.5's stored one takes a gigabyte on the way.
        with parameters_on_meta():
            module = family.build(config)
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(allow_scalar_outputs=True))
    known: dict[int, tuple[Any, Any]] = {}
    with mode:
        for part in module.modules():
            _fake_in_place(part._parameters, known, keep=set())
            _fake_in_place(part._buffers, known, keep=part._non_persistent_buffers_set)
    return module, mode


def _has_computed_tensors(part: Any) -> bool:
    """Whether a module holds tensors that come from no checkpoint."""
    import torch

    plain = any(isinstance(value, torch.Tensor) for value in vars(part).values())
    return plain or bool(part._non_persistent_buffers_set)


def _fake_in_place(
    tensors: dict[str, Any], known: dict[int, tuple[Any, Any]], *, keep: set[str]
) -> None:
    """Put fake CPU tensors in the place of `tensors`; what is shared stays shared."""
    import torch

    for name, tensor in tensors.items():
        if tensor is None or name in keep:
            continue
        if id(tensor) not in known:
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            if isinstance(tensor, torch.nn.Parameter):
                fake = torch.nn.Parameter(fake, requires_grad=False)
            # The original is kept alive: its id must not be given to another.
            known[id(tensor)] = (tensor, fake)
        tensors[name] = known[id(tensor)][1]
