"""Scikit-learn's digits as 16x16 images: one seeded 80 % split for every network of the zoo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

SPLIT_SEED = 20240
TRAIN_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images float32[N, 1, 16, 16] in 0..1 and labels int64[N]; `fine` is float32[N, 1, 32, 32]."""

    images: torch.Tensor
    fine: torch.Tensor
    labels: torch.Tensor


def load_split() -> tuple[Digits, Digits]:
    """The training 80 % and the held-out 20 %, stratified by class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw = load_digits()
    pixels = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16.0
    labels = torch.tensor(raw.target, dtype=torch.int64)
    train, held_out = train_test_split(
        range(len(labels)),
        train_size=TRAIN_SHARE,
        random_state=SPLIT_SEED,
        stratify=labels.numpy(),
    )
    return _digits(pixels, labels, sorted(train)), _digits(pixels, labels, sorted(held_out))


def _digits(pixels: torch.Tensor, labels: torch.Tensor, rows: list[int]) -> Digits:
    chosen = pixels[rows]
    return Digits(images=_resize(chosen, 16), fine=_resize(chosen, 32), labels=labels[rows])


def _resize(pixels: torch.Tensor, size: int) -> torch.Tensor:
    grown = F.interpolate(pixels, size=(size, size), mode="bicubic", align_corners=False)
    return grown.clamp(0.0, 1.0)


def augmented(digits: Digits, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Fresh random affine views float32[len(rows), 1, 16, 16] in 0..1 of the given rows.

    Rotation, scale, shear and shift are drawn per image, so that a denoiser never sees the same
    picture twice and cannot learn copies.
    """
    n = len(rows)
    draw = torch.randn(6, n, generator=generator).clamp(-2.0, 2.0)
    angle, shear = 0.10 * draw[0], 0.10 * draw[1]
    width, height = torch.exp(0.07 * draw[2]), torch.exp(0.07 * draw[3])
    cos, sin = torch.cos(angle), torch.sin(angle)
    top = torch.stack([cos * width, (-sin + shear) * height, 0.05 * draw[4]], dim=1)
    bottom = torch.stack([sin * width, cos * height, 0.05 * draw[5]], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), [n, 1, 16, 16], align_corners=False)
    views = F.grid_sample(
        digits.fine[rows], grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return views.clamp(0.0, 1.0)
