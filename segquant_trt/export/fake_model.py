"""A denoiser without weights: parameters are fake tensors, nothing of their size is allocated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from segquant_trt.models.family import Family


def fake_module(family: Family, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The family's module in float32 on fake tensors, and its FakeTensorMode.

    Buffers that a checkpoint does not store keep their real values: the graph needs them.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with parameters_on_meta():
        module = family.module_class().from_config(dict(config)).eval()
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(allow_scalar_outputs=True))
    with mode:
        for part in module.modules():
            _replace(part._parameters, keep=frozenset())
            _replace(part._buffers, keep=part._non_persistent_buffers_set)
    return module, mode


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Every parameter goes to the meta device as soon as a module takes it.

    Initialisers then cost nothing, and buffers, unlike under a meta default device, are computed.
    """
    import torch

    register = torch.nn.Module.register_parameter

    def register_on_meta(module: Any, name: str, parameter: Any) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = torch.nn.Parameter(
                parameter.detach().to("meta"), requires_grad=False
            )

    module_class: Any = torch.nn.Module
    module_class.register_parameter = register_on_meta
    try:
        yield
    finally:
        module_class.register_parameter = register


def _replace(tensors: dict[str, Any], *, keep: frozenset[str] | set[str]) -> None:
    import torch

    for name, tensor in tensors.items():
        if tensor is None or name in keep:
            continue
        fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        tensors[name] = (
            torch.nn.Parameter(fake, requires_grad=False)
            if isinstance(tensor, torch.nn.Parameter)
            else fake
        )


def shared_names(module: Any) -> dict[str, tuple[str, ...]]:
    """All state-dict names of every parameter that has more than one."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {name: tuple(group) for group in names.values() if len(group) > 1 for name in group}
