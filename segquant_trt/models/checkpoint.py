"""The safetensors files of a denoiser folder: whole or in shards, cache symlinks resolved."""

from __future__ import annotations

import json
from pathlib import Path

from segquant_trt.errors import SegQuantError
from segquant_trt.graph.safetensors_header import StoredTensor, read_header

_STEMS = ("diffusion_pytorch_model", "model")


def find_checkpoint(folder: Path) -> tuple[Path, ...]:
    """The weight files of `folder`, real paths in one directory, headers checked.

    A plain file wins over a variant (`.fp16.`); an index names the shards.

    Raises:
        SegQuantError: no safetensors, only pickled weights, a missing or truncated shard, or
            shards in different folders.
    """
    names = _weight_files(folder)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise SegQuantError(
            f"{folder} lacks the weight file {missing[0]}", hint="fetch the checkpoint again"
        )
    files = tuple(sorted({(folder / name).resolve() for name in names}))
    parents = {file.parent for file in files}
    if len(parents) > 1:
        raise SegQuantError(
            f"the shards of {folder} are links into different folders: "
            + ", ".join(sorted(str(parent) for parent in parents)),
            hint="put the shards into one folder",
        )
    for file in files:
        read_header(file)
    return files


def read_tensors(files: tuple[Path, ...]) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint by state-dict name.

    Raises:
        SegQuantError: a tensor occurs in two shards.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in read_header(file).tensors.items():
            if name in tensors:
                raise SegQuantError(
                    f"tensor '{name}' is stored twice, in {tensors[name].file} and {file.name}",
                    hint="fetch the checkpoint again",
                )
            tensors[name] = tensor
    return tensors


def _weight_files(folder: Path) -> list[str]:
    for stem in _STEMS:
        for index in (folder / f"{stem}.safetensors.index.json", *_variants(folder, stem, True)):
            if index.is_file():
                return _shards(index)
        for file in (folder / f"{stem}.safetensors", *_variants(folder, stem, False)):
            if file.is_file():
                return [file.name]
    pickled = sorted(file.name for suffix in ("*.bin", "*.pt") for file in folder.glob(suffix))
    if pickled:
        raise SegQuantError(
            f"{folder} has only pickled weights ({pickled[0]}); safetensors are needed",
            hint="convert once: from diffusers import AutoModel; "
            "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    raise SegQuantError(
        f"{folder} has no weights (diffusion_pytorch_model.safetensors or an index of shards)",
        hint="fetch the checkpoint again",
    )


def _variants(folder: Path, stem: str, index: bool) -> list[Path]:
    if index:
        return sorted(folder.glob(f"{stem}.safetensors.index.*.json"))
    return [
        file for file in sorted(folder.glob(f"{stem}.*.safetensors")) if "-of-" not in file.name
    ]


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        names = set()
    if not names or not all(isinstance(name, str) for name in names):
        raise SegQuantError(
            f"{index} is not an index of safetensors shards", hint="fetch the checkpoint again"
        )
    outside = [name for name in sorted(names) if Path(name).name != name or name == ".."]
    if outside:
        raise SegQuantError(
            f"{index} names '{outside[0]}'; only plain file names are allowed",
            hint="fetch the checkpoint again",
        )
    return sorted(names)
