"""Images as files: one PNG per seed and denoiser, and a sheet with both side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segquant_trt.records.files import atomic_write_bytes
from segquant_trt.records.images import ReportImages

_SHEET_SIDE = 128  # small images are enlarged by whole factors to about this many pixels
_GAP = 4
_PER_ROW = 10


def write_images(folder: Path, images: ReportImages) -> Path:
    """Write `SEED-float.png`, `SEED-quantized.png` and `side-by-side.png` into `folder`.

    Returns:
        The sheet: rows of float images, each with its quantised row below.

    Raises:
        SegQuantError: the folder cannot be written.
    """
    reference, quantized = _bytes(images.float_images), _bytes(images.quantized_images)
    for index, seed in enumerate(images.seeds):
        atomic_write_bytes(folder / f"{seed}-float.png", _png(reference[index]))
        atomic_write_bytes(folder / f"{seed}-quantized.png", _png(quantized[index]))
    sheet = folder / "side-by-side.png"
    atomic_write_bytes(sheet, _png(_sheet(reference, quantized)))
    return sheet


def _sheet(
    reference: npt.NDArray[np.uint8], quantized: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    factor = max(1, _SHEET_SIDE // max(reference.shape[1:3]))
    rows = []
    for start in range(0, len(reference), _PER_ROW):
        chosen = slice(start, start + _PER_ROW)
        rows += [_row(reference[chosen], factor), _row(quantized[chosen], factor)]
    widest = max(row.shape[1] for row in rows)
    padded = [_padded(row, widest) for row in rows]
    return np.concatenate(padded)


def _row(images: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    border = [(0, 0), (0, _GAP), (0, _GAP)] + [(0, 0)] * (large.ndim - 3)
    framed = np.pad(large, border, constant_values=255)
    return np.concatenate(list(framed), axis=1)


def _padded(row: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    missing = [(0, 0), (0, width - row.shape[1])] + [(0, 0)] * (row.ndim - 2)
    return np.pad(row, missing, constant_values=255)


def _bytes(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    finite = np.nan_to_num(images, nan=0.0)
    return np.rint(np.clip(finite, 0.0, 1.0) * 255).astype(np.uint8)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
