"""`images.safetensors`: pictures of the float and the quantised denoiser from the same seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segquant_trt.errors import SegQuantError
from segquant_trt.records.files import atomic_write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

_METADATA_KEY = "segquant_trt"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportImages:
    """Image pairs for the report.

    `float_images` and `quantized_images` are float32[N, H, W] (grey) or float32[N, H, W, 3] (RGB)
    in 0..1, of equal shape; `seeds` has N entries; `labels` names each image's condition (class
    or prompt) and is empty or has N entries.

    Raises:
        SegQuantError: the parts do not fit together.
    """

    float_images: npt.NDArray[np.float32]
    quantized_images: npt.NDArray[np.float32]
    seeds: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.float_images.shape
        grey_or_rgb = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
        dtypes = {self.float_images.dtype.name, self.quantized_images.dtype.name}
        if self.quantized_images.shape != shape or not grey_or_rgb or dtypes != {"float32"}:
            raise SegQuantError(
                f"report images have shapes {shape} and {self.quantized_images.shape} and types "
                f"{sorted(dtypes)}; two equal float32[N, H, W] or float32[N, H, W, 3] are allowed",
                hint="run verify again",
            )
        if len(self.seeds) != shape[0] or len(self.labels) not in (0, shape[0]):
            raise SegQuantError(
                f"{shape[0]} report images have {len(self.seeds)} seeds and "
                f"{len(self.labels)} labels",
                hint="run verify again",
            )


def save_images(path: Path, images: ReportImages) -> None:
    """Write `images` as one safetensors file, atomically; equal images give equal bytes."""
    import numpy as np
    from safetensors.numpy import save

    tensors: dict[str, Any] = {
        "float_images": np.ascontiguousarray(images.float_images),
        "quantized_images": np.ascontiguousarray(images.quantized_images),
        "seeds": np.array(images.seeds, dtype=np.int64),
    }
    # One metadata key: safetensors does not promise an order for several.
    note = {"schema_version": _SCHEMA_VERSION, "kind": "images", "labels": list(images.labels)}
    metadata = {_METADATA_KEY: json.dumps(note, sort_keys=True)}
    atomic_write_bytes(path, save(tensors, metadata=metadata))


def load_images(path: Path) -> ReportImages:
    """Read what `save_images` wrote.

    Raises:
        SegQuantError: the file is missing, truncated or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as stream:
            note = json.loads((stream.metadata() or {})[_METADATA_KEY])
            if note["kind"] != "images" or note["schema_version"] != _SCHEMA_VERSION:
                raise KeyError("kind")
            return ReportImages(
                float_images=stream.get_tensor("float_images"),
                quantized_images=stream.get_tensor("quantized_images"),
                seeds=tuple(int(seed) for seed in stream.get_tensor("seeds")),
                labels=tuple(str(label) for label in note["labels"]),
            )
    except FileNotFoundError as error:
        raise SegQuantError(f"{path} does not exist", hint="run verify first") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise SegQuantError(
            f"{path} does not hold report images (truncated or another format)",
            hint="run verify again",
        ) from error
