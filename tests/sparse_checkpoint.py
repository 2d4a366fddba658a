"""Checkpoints of any size that take no disk space: a real header over a hole."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segquant_trt.models import family_for

FLUX_DEV: dict[str, Any] = {
    "_class_name": "FluxTransformer2DModel",
    "attention_head_dim": 128,
    "axes_dims_rope": [16, 56, 56],
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "out_channels": None,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}


def write_sparse_checkpoint(
    folder: Path, config: Mapping[str, Any], *, shards: int = 1, dtype: str = "BF16"
) -> tuple[Path, ...]:
    """A denoiser folder whose safetensors files have every tensor's header entry and no data."""
    shapes = _shapes(config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))
    names = list(shapes)
    per_shard = -(-len(names) // shards)
    stem = "diffusion_pytorch_model"
    files, weight_map = [], {}
    for index in range(shards):
        part = names[index * per_shard : (index + 1) * per_shard]
        suffix = f"-{index + 1:05d}-of-{shards:05d}" if shards > 1 else ""
        path = folder / f"{stem}{suffix}.safetensors"
        _write_sparse(path, {name: shapes[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, path.name)
        files.append(path)
    if shards > 1:
        index_path = folder / f"{stem}.safetensors.index.json"
        index_path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tuple(files)


def allocated_bytes(path: Path) -> int:
    """What the file really takes on disk."""
    return path.stat().st_blocks * 512


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    import torch

    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.device("meta"):
        module = family_for(config["_class_name"]).module_class().from_config(settings)
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    item_bytes = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = item_bytes
        for length in shape:
            size *= length
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + offset)
