"""Float and quantised images and their difference, as PNG data URIs within a byte budget."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segquant_trt.records.images import ReportImages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BUDGET_BYTES = 700_000
_PIXELATED_BELOW = 96
_LARGEST_SIDE = 384  # twice the width that the page gives a picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One seed: three `data:` URIs, the condition, and the PSNR over the full-size image."""

    seed: int
    label: str | None
    psnr_db: float
    float_uri: str
    quantized_uri: str
    difference_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The pictures shown, of `total`; `difference_limit` is the brightest difference's value."""

    pictures: tuple[Picture, ...]
    total: int
    width: int
    height: int
    pixelated: bool
    difference_limit: float


def gallery(images: ReportImages) -> Gallery | None:
    """Up to 16 seeds, fewer when large; shrunk until all fit the budget. None without images."""
    import numpy as np

    total, height, width = images.float_images.shape[:3]
    if total == 0:
        return None
    count = min(total, 16 if max(height, width) <= _PIXELATED_BELOW else 6)
    reference = _displayable(images.float_images[:count])
    quantized = _displayable(images.quantized_images[:count])
    difference = np.abs(reference - quantized)
    if difference.ndim == 4:
        difference = difference.mean(axis=3)
    limit = max(float(difference.max()), 1 / 255)
    uris = _encode((reference, quantized, _heat(difference / limit)))
    return Gallery(
        pictures=tuple(
            Picture(
                seed=images.seeds[i],
                label=images.labels[i] if images.labels else None,
                psnr_db=_psnr_db(images.float_images[i], images.quantized_images[i]),
                float_uri=uris[0][i],
                quantized_uri=uris[1][i],
                difference_uri=uris[2][i],
            )
            for i in range(count)
        ),
        total=total,
        width=width,
        height=height,
        pixelated=max(height, width) <= _PIXELATED_BELOW,
        difference_limit=limit,
    )


def _displayable(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import numpy as np

    # A broken quantisation may give NaN: shown black, with a PSNR that is not a number.
    finite = np.nan_to_num(batch, nan=0.0, posinf=1.0, neginf=0.0)
    return np.clip(finite, 0.0, 1.0).astype(np.float32)


def _psnr_db(reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    import numpy as np

    error = float(np.mean((reference.astype(np.float64) - other.astype(np.float64)) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def _heat(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import numpy as np
    from matplotlib import colormaps

    return np.asarray(colormaps["magma"](batch)[..., :3], dtype=np.float32)


def _encode(batches: tuple[npt.NDArray[np.float32], ...]) -> list[list[str]]:
    side = min(_LARGEST_SIDE, max(batches[0].shape[1:3]))
    while True:
        encoded = [[_png(image, side) for image in batch] for batch in batches]
        excess = sum(len(data) for column in encoded for data in column) / _BUDGET_BYTES
        if excess <= 1 or side <= _PIXELATED_BELOW:
            break
        side = int(side * min(0.9, 0.97 / math.sqrt(excess)))
    return [
        ["data:image/png;base64," + base64.b64encode(data).decode() for data in column]
        for column in encoded
    ]


def _png(image: npt.NDArray[np.float32], side: int) -> bytes:
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.rint(image * 255).astype(np.uint8))
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
