"""The torch module of a checkpoint, in float32: what exports are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.safetensors_header import StoredTensor
from segquant_trt.models.checkpoint import read_tensors
from segquant_trt.models.family import Family

FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
"""Types that a checkpoint may store, in the words of safetensors."""


def load_module(files: Iterable[Path], family: Family, config: Mapping[str, Any]) -> Any:
    """The torch module in float32 with the checkpoint's weights.

    Raises:
        SegQuantError: the checkpoint does not fit the configuration.
    """
    import torch
    from safetensors.torch import load_file

    files = tuple(files)
    with parameters_on_meta():
        module = family.build(config)
    matched = match(module, read_tensors(files))
    loaded = {name: tensor for file in files for name, tensor in load_file(file).items()}
    state = {name: loaded[stored.name].to(torch.float32) for name, stored in matched.items()}
    module.load_state_dict(state, assign=True)
    return module


def match(module: Any, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The stored tensor of every name in the module's state dict, checked before the long trace.

    A checkpoint stores a shared parameter under one of its names.

    Raises:
        SegQuantError: a weight is missing, has another shape or an unusable type, or belongs to a
            layer that the module does not have.
    """
    _check_unused(module, stored)
    aliases = _shared_names(module)
    matched = {}
    for name, expected in module.state_dict().items():
        found = next((n for n in (name, *aliases.get(name, ())) if n in stored), None)
        if found is None:
            raise SegQuantError(
                f"weight '{name}' is not in the checkpoint",
                hint="config.json and weights belong to different models, or a shard is missing",
            )
        matched[name] = tensor = stored[found]
        if tensor.shape != tuple(expected.shape):
            raise SegQuantError(
                f"weight '{name}' in {tensor.file} has shape {list(tensor.shape)}; "
                f"config.json asks for {list(expected.shape)}",
                hint="config.json and weights belong to different models; fetch both again",
            )
        if tensor.dtype not in FLOAT_TYPES:
            raise SegQuantError(
                f"weight '{name}' in {tensor.file} is stored as {tensor.dtype}; "
                f"allowed: {', '.join(FLOAT_TYPES)}",
                hint="start from the 16- or 32-bit checkpoint",
            )
    return matched


def _check_unused(module: Any, stored: Mapping[str, StoredTensor]) -> None:
    """Foreign tensors beside the model's own are harmless; further layers are another model."""
    known = set(module.state_dict()) | {name for name, _ in module.named_buffers()}
    parts = {name for name, _ in module.named_children()}
    further = [name for name in stored if name not in known and name.partition(".")[0] in parts]
    if further:
        raise SegQuantError(
            f"weight '{further[0]}' in {stored[further[0]].file} belongs to no layer that "
            f"config.json describes ({len(further)} such weights)",
            hint="config.json and weights belong to different models; fetch both again",
        )


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Every parameter goes to the meta device as soon as a module takes it.

    Initialisers then cost nothing, and buffers, unlike under a meta default device, are computed.
    """
    import torch

    register = torch.nn.Module.register_parameter

    def register_on_meta(module: Any, name: str, parameter: Any) -> None:
        register(module, name, parameter)
        # One that is there already is shared with another module, and stays so.
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = torch.nn.Parameter(
                parameter.detach().to("meta"), requires_grad=False
            )

    module_class: Any = torch.nn.Module
    module_class.register_parameter = register_on_meta
    try:
        yield
    finally:
        module_class.register_parameter = register


def _shared_names(module: Any) -> dict[str, tuple[str, ...]]:
    """All state-dict names of every parameter that has more than one."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {name: tuple(group) for group in names.values() if len(group) > 1 for name in group}
