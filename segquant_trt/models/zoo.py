"""The small trained models that ship with the package, and what judges their samples.

Three denoisers of ten handwritten digits, and for each an outlier twin: the same function with the
activation outliers of large models, derived from the shipped weights on first use.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from segquant_trt.errors import SegQuantError
from segquant_trt.models.digit_classifier import (
    DigitClassifier,
    frechet_reference,
    load_classifier,
)
from segquant_trt.models.loop import Array, Denoise, Float32
from segquant_trt.models.zoo_loop import ZooLoop, ZooSamples, denoiser_of
from segquant_trt.records.files import digest_of, sha256_file, writing_failed
from segquant_trt.records.user_cache import default_cache

__all__ = [
    "ZOO",
    "DigitClassifier",
    "ZooLoop",
    "ZooSamples",
    "frechet_reference",
    "load_classifier",
    "torch_denoise",
    "zoo_path",
]

_BASES = ("digits-unet", "digits-mmdit", "digits-flux")
_TWIN = "-outliers"
_DATA = Path(__file__).parent / "zoo_data"

ZOO: tuple[str, ...] = (*_BASES, *(base + _TWIN for base in _BASES))


def zoo_path(name: str, cache_dir: Path | None = None) -> Path:
    """The model's folder in diffusers layout; an outlier twin is generated on first use.

    Args:
        name: one of `ZOO`.
        cache_dir: where twins are kept; by default `$SEGQUANT_TRT_CACHE`, else
            `~/.cache/segquant_trt`.

    Raises:
        SegQuantError: no such model, or the cache cannot be written.
    """
    if name not in ZOO:
        raise SegQuantError(
            f"zoo model '{name}' does not exist; there are {', '.join(ZOO)}",
            hint="choose one of these names, as zoo:NAME on the command line",
        )
    base = _DATA / name.removesuffix(_TWIN)
    if not name.endswith(_TWIN):
        return base
    return _twin(name, base, default_cache() if cache_dir is None else cache_dir)


def _twin(name: str, base: Path, cache_dir: Path) -> Path:
    """Generate the twin beside its final place and rename it there, unless it is there already."""
    from segquant_trt.models.outliers import GENERATOR_VERSION, write_twin

    _, component = denoiser_of(base)
    source = base / component / "diffusion_pytorch_model.safetensors"
    key = digest_of({"source": sha256_file(source), "generator": GENERATOR_VERSION})
    final = cache_dir / f"{name}-{key[:16]}"
    if final.is_dir():
        return final
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache_dir) as scratch:
            made = Path(scratch) / name
            shutil.copytree(base, made)
            write_twin(source, made / component / source.name)
            _put_in_place(made, final)
    except OSError as error:
        raise writing_failed(final, error) from error
    return final


def _put_in_place(made: Path, final: Path) -> None:
    try:
        made.rename(final)
    except OSError:
        # Another process was faster: its folder holds the same bytes.
        if not final.is_dir():
            raise


def torch_denoise(
    folder: Path, dtype: Literal["float32", "float16", "bfloat16"] = "float32"
) -> Denoise:
    """The diffusers model of `folder` itself, on the CPU, behind the loop's NumPy interface.

    Args:
        dtype: of weights and computation; the interface stays float32.

    Raises:
        SegQuantError: the folder holds no known denoiser.
    """
    import diffusers
    import torch

    class_name, component = denoiser_of(folder)
    precision: torch.dtype = getattr(torch, dtype)
    model = getattr(diffusers, class_name).from_pretrained(
        folder / component, torch_dtype=precision, local_files_only=True
    )
    model.eval().requires_grad_(False)

    def denoise(inputs: Mapping[str, Array]) -> Float32:
        arguments = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
        with torch.inference_mode():
            predicted = model(**{name: value.to(precision) for name, value in arguments.items()})
        result: Float32 = predicted.sample.to(torch.float32).numpy()
        return result

    return denoise
