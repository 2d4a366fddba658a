"""From what the user names (zoo:NAME, a folder, a hub id) to a denoiser's files on disk."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segquant_trt.errors import MissingDependencyError, SegQuantError
from segquant_trt.models import family_for
from segquant_trt.models.checkpoint import find_checkpoint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMPONENTS = ("transformer", "unet")
_ZOO_PREFIX = "zoo:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A denoiser on disk: its configuration and its safetensors files, symlinks resolved.

    `pipeline_folder` is None for a denoiser folder alone. `checkpoint` files share one folder.
    """

    kind: Literal["zoo", "pipeline", "denoiser"]
    name: str
    pipeline_folder: Path | None
    denoiser_folder: Path
    class_name: str
    config: dict[str, Any]
    checkpoint: tuple[Path, ...]


def resolve(
    model: str, *, subfolder: str | None = None, revision: str | None = None
) -> ModelSource:
    """Find the denoiser that `model` names.

    Args:
        model: `zoo:NAME`, a diffusers pipeline folder, a denoiser folder, or a hub id.
        subfolder: the denoiser's folder inside the pipeline (default: transformer or unet).
        revision: branch, tag or commit for a hub id.

    Raises:
        SegQuantError: nothing there, not a model, an unsupported class, or unusable weights.
    """
    if model.startswith(_ZOO_PREFIX):
        from segquant_trt.models.zoo import zoo_path

        return _in_folder(
            zoo_path(model.removeprefix(_ZOO_PREFIX)), kind="zoo", name=model, subfolder=subfolder
        )
    path = Path(model).expanduser()
    if path.exists():
        return _in_folder(path, kind=None, name=path.resolve().name, subfolder=subfolder)
    if _HUB_ID.fullmatch(model):
        folder = _download(model, revision=revision)
        return _in_folder(folder, kind=None, name=model, subfolder=subfolder)
    raise SegQuantError(
        f"model '{model}' does not exist: no such folder, and not a hub id (owner/name)",
        hint="give a diffusers folder, a hub id, or a model of the zoo such as zoo:digits-unet",
    )


def _in_folder(
    path: Path, *, kind: Literal["zoo"] | None, name: str, subfolder: str | None
) -> ModelSource:
    if not path.is_dir():
        raise SegQuantError(
            f"{path} is a file; a model is a folder with config.json and safetensors files",
            hint="give the folder; a single-file checkpoint is converted by diffusers' "
            "from_single_file(...).save_pretrained(FOLDER)",
        )
    if not any(path.iterdir()):
        raise SegQuantError(f"{path} is empty", hint="download or save the model there first")
    _refuse_lora(path)
    if (path / "model_index.json").is_file():
        folder = path / (subfolder or _component(path))
        return _denoiser(folder, kind=kind or "pipeline", name=name, pipeline=path)
    if subfolder is not None:
        return _denoiser(path / subfolder, kind=kind or "denoiser", name=name, pipeline=None)
    return _denoiser(path, kind=kind or "denoiser", name=name, pipeline=None)


def _component(path: Path) -> str:
    index = _read_json(path / "model_index.json")
    for component in _COMPONENTS:
        if component in index and (path / component).is_dir():
            return component
    raise SegQuantError(
        f"{path} is a pipeline without a denoiser: neither transformer/ nor unet/ is there",
        hint="name the denoiser's folder with --subfolder, or fetch the whole pipeline",
    )


def _denoiser(
    folder: Path,
    *,
    kind: Literal["zoo", "pipeline", "denoiser"],
    name: str,
    pipeline: Path | None,
) -> ModelSource:
    if not (folder / "config.json").is_file():
        raise SegQuantError(
            f"{folder} is not a model: it has no config.json (nor a model_index.json)",
            hint="give a folder written by diffusers' save_pretrained",
        )
    config = _read_json(folder / "config.json")
    class_name = config.get("_class_name")
    if not isinstance(class_name, str):
        raise SegQuantError(
            f"{folder / 'config.json'} is not a diffusers configuration: no '_class_name'",
            hint="give a folder written by diffusers' save_pretrained",
        )
    family = family_for(class_name)
    if "quantization_config" in config:
        raise SegQuantError(
            f"{folder} is already quantised (config.json has 'quantization_config')",
            hint="start from the 16- or 32-bit checkpoint",
        )
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    return ModelSource(
        kind=kind,
        name=name,
        pipeline_folder=pipeline,
        denoiser_folder=folder,
        class_name=class_name,
        config=family.complete(settings),
        checkpoint=find_checkpoint(folder),
    )


def _refuse_lora(path: Path) -> None:
    marks = ("pytorch_lora_weights.safetensors", "adapter_config.json")
    for mark in marks:
        if (path / mark).is_file() and not (path / "model_index.json").is_file():
            raise SegQuantError(
                f"{path} holds a LoRA ({mark}), not a whole model",
                hint="fuse it into its base model first: pipe.load_lora_weights(...); "
                "pipe.fuse_lora(); pipe.unload_lora_weights(); pipe.save_pretrained(FOLDER)",
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegQuantError(
            f"{path} is not readable JSON: {error}", hint="fetch or save the model again"
        ) from error
    if not isinstance(value, dict):
        raise SegQuantError(f"{path} holds no JSON object", hint="fetch or save the model again")
    return value


def _download(model: str, *, revision: str | None) -> Path:
    """The snapshot folder of a hub id: the whole pipeline, or the denoiser's files alone."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingDependencyError(
            "huggingface_hub", extra=None, why=f"fetching '{model}'"
        ) from error
    try:
        index = snapshot_download(model, revision=revision, allow_patterns=["*.json"])
        if (Path(index) / "model_index.json").is_file():
            from diffusers import DiffusionPipeline

            return Path(DiffusionPipeline.download(model, revision=revision))
        patterns = ["*.json", "diffusion_pytorch_model*.safetensors"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise SegQuantError(
            f"'{model}' is no folder here, and the hub did not give it: "
            f"{str(error).splitlines()[0]}",
            hint="check the spelling and the network, or give a folder on disk",
        ) from error
