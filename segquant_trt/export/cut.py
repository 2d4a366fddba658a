"""A small random model of the same architecture, for models too large to run here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segquant_trt.models.checkpoint import read_tensors
from segquant_trt.models.family import Family

_TORCH_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_cut(
    family: Family, config: Mapping[str, Any], checkpoint: Iterable[Path], folder: Path
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Write seeded random weights for `family.cut(config)`, in the checkpoint's main type."""
    import torch
    from safetensors.torch import save_file

    small = family.cut(config)
    stored = Counter(tensor.dtype for tensor in read_tensors(tuple(checkpoint)).values())
    dtype = getattr(torch, _TORCH_TYPES.get(stored.most_common(1)[0][0], "float32"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = family.module_class().from_config(small)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cut.safetensors"
    save_file(
        {name: tensor.to(dtype).contiguous() for name, tensor in module.state_dict().items()}, path
    )
    return small, (path,)
