"""An object that a diffusers pipeline takes for its denoiser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.models.family import Config, Family
from segquant_trt.models.loop import Array, Denoise
from segquant_trt.records import TensorSpec

if TYPE_CHECKING:
    import torch


class DropIn:
    """Takes the arguments of the denoiser's `forward` and passes them on as flat NumPy arrays.

    Assign it to `pipe.unet` or `pipe.transformer`. It has what pipelines read from a denoiser:
    `config`, `dtype`, `device`, `cache_context`, and for SDXL `add_embedding`.
    """

    def __init__(self, denoise: Denoise, family: Family, config: Config) -> None:
        from diffusers.configuration_utils import FrozenDict

        self._denoise = denoise
        self._specs = {spec.name: spec for spec in family.inputs(config)}
        self._class_name = family.class_name
        self.config = FrozenDict(config)
        width = config.get("projection_class_embeddings_input_dim")
        self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=width))

    @property
    def dtype(self) -> torch.dtype:
        """float32: what the denoiser computes its inputs and output in."""
        import torch

        return torch.float32

    @property
    def device(self) -> torch.device:
        """The CPU, where the arrays go."""
        import torch

        return torch.device("cpu")

    @contextmanager
    def cache_context(self, name: str) -> Iterator[None]:
        """diffusers names the guidance branch here for its caches; there is none."""
        yield

    def __call__(self, *arguments: Any, return_dict: bool = True, **keywords: Any) -> Any:
        """One prediction, on the device and in the type of the first argument.

        Raises:
            SegQuantError: an argument is missing, or is one that the export does not have.
        """
        import torch
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        given = _flat(dict(zip(self._specs, arguments, strict=False)) | keywords)
        first = given.get(next(iter(self._specs)))
        prediction = torch.from_numpy(np.ascontiguousarray(self._denoise(self._arrays(given))))
        if isinstance(first, torch.Tensor):
            prediction = prediction.to(device=first.device, dtype=first.dtype)
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)

    def _arrays(self, given: Mapping[str, Any]) -> dict[str, Array]:
        unknown = sorted(given.keys() - self._specs.keys())
        if unknown:
            raise SegQuantError(
                f"{self._class_name} was exported without the argument '{unknown[0]}'; "
                f"it has {', '.join(self._specs)}",
                hint="leave it out (LoRA scales, ControlNet residuals and masks are not exported)",
            )
        missing = [name for name in self._specs if name not in given]
        if missing:
            raise SegQuantError(
                f"{self._class_name} needs the argument '{missing[0]}'",
                hint=f"it takes {', '.join(self._specs)}",
            )
        batch = len(given[next(iter(self._specs))])
        return {name: _array(given[name], spec, batch) for name, spec in self._specs.items()}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted names; None and empty dicts mean that an argument was not given."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat


def _array(value: Any, spec: TensorSpec, batch: int) -> Array:
    import torch

    if isinstance(value, torch.Tensor):
        # NumPy has no bfloat16.
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    array: Array = np.asarray(value, dtype=np.dtype(spec.dtype))
    if spec.shape == ("batch",):
        array = np.broadcast_to(array.reshape(-1), (batch,))
    elif array.ndim == len(spec.shape) + 1 and array.shape[0] == 1:
        # Older pipelines give FLUX's positions a batch axis.
        array = array[0]
    # A copy: pipelines reuse their buffers, callers may keep what they are given.
    return np.array(array, order="C")
