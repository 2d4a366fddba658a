"""Sign and magnitude as operands of one 2:4 sparse product: what a sparse tensor core is given.

| logical operand | stored as |
|---|---|
| `[x+_0, x-_0, x+_1, x-_1, ...]`, two of four non-zero | magnitudes, 2 bits of metadata each |
| `[w_0, -w_0', w_1, -w_1', ...]`, `w' = round(w / ratio)` | int8, twice the columns |

Column k of the activation is at place `2 (k mod 2) + (x_k < 0)` of group `k // 2`: the metadata is
the sign. Sixteen columns make one uint32 word, column c at bits 2c and 2c + 1 (PTX ISA, `mma.sp`
with 8-bit operands). The places of a group ascend, as the hardware requires, in padding as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.records import SignMagnitude, SparseDual
from segquant_trt.schemes.sign_magnitude import LARGEST, magnitudes
from segquant_trt.schemes.sparse_dual import divided_codes, negative_scale

WORD_COLUMNS = 16
# Beyond it an int32 accumulator of magnitudes times int8 codes may overflow.
MAX_COLUMNS = (2**31 - 1) // (LARGEST * 127)
_POSITIVE_WORD = np.uint32(0x88888888)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseCodes:
    """The compressed operand, its columns P padded to whole words, and its metadata.

    `magnitudes`: uint8[M, P], zero in the padding. `words`: uint32[M, P / 16].
    """

    magnitudes: npt.NDArray[np.uint8]
    words: npt.NDArray[np.uint32]


def encode(
    x: npt.NDArray[np.float32], scheme: SignMagnitude | SparseDual, *, multiple: int = WORD_COLUMNS
) -> SparseCodes:
    """The operand of float32[M, K], its columns padded to a `multiple` of 16."""
    negative = x < 0.0
    below = negative_scale(scheme) if isinstance(scheme, SparseDual) else scheme.scale
    levels = np.where(negative, magnitudes(x, below), magnitudes(x, scheme.scale))
    padding = ((0, 0), (0, -x.shape[1] % multiple))
    groups = np.pad(negative, padding).reshape(len(x), -1, WORD_COLUMNS)
    bits = groups.astype(np.uint32) << (2 * np.arange(WORD_COLUMNS, dtype=np.uint32))
    words = _POSITIVE_WORD | np.bitwise_or.reduce(bits, axis=2)
    return SparseCodes(magnitudes=np.pad(levels, padding), words=words.astype(np.uint32))


def places(codes: SparseCodes) -> npt.NDArray[np.int64]:
    """Place 0..3 of every column in its group of four, int64[M, P], read from the metadata."""
    shifts = 2 * np.arange(WORD_COLUMNS, dtype=np.uint32)
    pairs = (codes.words[:, :, None] >> shifts) & np.uint32(3)
    found: npt.NDArray[np.int64] = pairs.reshape(codes.magnitudes.shape).astype(np.int64)
    return found


def expanded(codes: SparseCodes) -> npt.NDArray[np.int16]:
    """The logical operand int16[M, 2 P] that the hardware sees."""
    rows, columns = codes.magnitudes.shape
    dense = np.zeros((rows, 2 * columns), dtype=np.int16)
    target = 4 * (np.arange(columns) // 2) + places(codes)
    np.put_along_axis(dense, target, codes.magnitudes.astype(np.int16), axis=1)
    return dense


def decode(
    codes: SparseCodes, scheme: SignMagnitude | SparseDual, columns: int
) -> npt.NDArray[np.float32]:
    """The float32[M, columns] that the codes stand for."""
    below = negative_scale(scheme) if isinstance(scheme, SparseDual) else scheme.scale
    pairs = expanded(codes).reshape(len(codes.magnitudes), -1, 2).astype(np.float32)
    decoded: npt.NDArray[np.float32] = pairs[..., 0] * np.float32(scheme.scale)
    decoded -= pairs[..., 1] * np.float32(below)
    return decoded[:, :columns]


def interleaved_weight(
    codes: npt.NDArray[np.int8], *, ratio: int = 1, multiple: int = WORD_COLUMNS
) -> npt.NDArray[np.int8]:
    """`[w_0, -round(w_0 / ratio), w_1, ...]`, int8[N, 2 P], of int8[N, K] without -128."""
    assert codes.min(initial=0) > -128, "-(-128) is no int8"
    pairs = np.stack([codes, -divided_codes(codes, ratio)], axis=2)
    padded = np.pad(pairs, ((0, 0), (0, -codes.shape[1] % multiple), (0, 0)))
    return padded.reshape(len(codes), -1)


def product(codes: SparseCodes, weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """The accumulators int64[M, N] of the sparse product with an interleaved weight."""
    found: npt.NDArray[np.int64] = expanded(codes).astype(np.int64) @ weight.astype(np.int64).T
    return found


def negative_sum(codes: SparseCodes) -> npt.NDArray[np.int32]:
    """Sum of the negative columns' magnitudes, int32[M].

    A kernel that forms `~w = -w - 1` in registers instead of `-w` adds it to every accumulator.
    """
    total: npt.NDArray[np.int32] = expanded(codes)[:, 1::2].sum(axis=1, dtype=np.int32)
    return total


def lane_words(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The metadata register of each lane, uint32[M / 16, P / 32, 32], for `mma.sp.m16n8k64`.

    With sparsity selector 0 lane l of a warp holds row `l / 4 + 8 (l mod 2)`, word
    `(l / 2) mod 2` of its tile of 16 rows and 32 columns. `words`: uint32[M, P / 16], M a multiple
    of 16, P of 32.
    """
    lane = np.arange(32)
    tiles = words.reshape(len(words) // 16, 16, words.shape[1] // 2, 2)
    found: npt.NDArray[np.uint32] = tiles[:, lane // 4 + 8 * (lane % 2), :, (lane // 2) % 2]
    return np.moveaxis(found, 0, 2)
