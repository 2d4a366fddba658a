"""torchao's dynamic FP8 with one scale per row, the fastest eight bits that torch.compile has.

Weights have one scale per output channel and activations one per token, computed in the kernel
before the product; `torch.compile` fuses that. Written for torchao 0.9 and newer; it has not been
executed by this project's tests, which have no GPU: they check that the names exist and what is
chosen.
"""

from __future__ import annotations

from typing import Any

from segquant_trt.errors import MissingDependencyError, SegQuantError

LEAST_CAPABILITY = (8, 9)
_MULTIPLE = 16  # the product's kernel takes rows of a multiple of 16 bytes


def quantize_module(module: Any, *, cuda: Any, api: Any = None) -> Any:
    """The module with its wide linears in row-wise FP8, to be compiled.

    Args:
        module: on the GPU, in bfloat16.
        cuda: `torch.cuda`.
        api: `torchao.quantization`; imported when None.

    Raises:
        SegQuantError: the GPU has no FP8 arithmetic, or torchao is too old.
        MissingDependencyError: torchao is not installed.
    """
    capability = tuple(cuda.get_device_capability())
    if capability < LEAST_CAPABILITY:
        raise SegQuantError(
            f"torchao's FP8 needs compute capability 8.9 or newer; this GPU has "
            f"{'.'.join(map(str, capability))}",
            hint="compare with torch-compile, or with an INT8 engine, on this GPU",
        )
    api = _torchao() if api is None else api
    try:
        config = api.Float8DynamicActivationFloat8WeightConfig(granularity=api.PerRow())
    except AttributeError as error:
        raise SegQuantError(
            "this torchao has no row-wise dynamic FP8 (Float8DynamicActivationFloat8WeightConfig)",
            hint="pip install -U torchao",
        ) from error
    api.quantize_(module, config, filter_fn=is_wide_linear)
    return module


def is_wide_linear(module: Any, _: str) -> bool:
    """Whether a module is a linear that the row-wise kernel takes."""
    import torch

    return (
        isinstance(module, torch.nn.Linear)
        and module.in_features % _MULTIPLE == 0
        and module.out_features % _MULTIPLE == 0
    )


def _torchao() -> Any:
    try:
        import torchao.quantization
    except ImportError as error:
        raise MissingDependencyError(
            "torchao", extra=None, why="the baseline 'torchao-fp8'"
        ) from error
    return torchao.quantization
