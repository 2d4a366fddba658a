"""Storage of 4-bit codes: two per byte, as ONNX stores INT4 tensors."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_LOWEST, _HIGHEST = -8, 7


def pack_int4(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Codes -8..7 of any shape, in C order, as uint8[ceil(size / 2)].

    Two's complement, the earlier code in the low nibble; a last odd one has a zero beside it.

    Raises:
        ValueError: a code does not fit four bits.
    """
    if codes.size and (codes.min() < _LOWEST or codes.max() > _HIGHEST):
        raise ValueError(f"codes {codes.min()}..{codes.max()} do not fit four bits")
    flat = np.zeros((codes.size + 1) // 2 * 2, dtype=np.uint8)
    flat[: codes.size] = codes.reshape(-1).view(np.uint8)
    flat &= 0x0F
    packed: npt.NDArray[np.uint8] = np.bitwise_or(flat[0::2], flat[1::2] << 4)
    return packed


def unpack_int4(packed: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """The int8 codes of `shape` that `pack_int4` stored.

    Raises:
        ValueError: the number of bytes is not that of `shape`.
    """
    size = math.prod(shape)
    if packed.size != (size + 1) // 2:
        raise ValueError(f"{packed.size} bytes do not hold {size} codes of four bits")
    flat = np.empty(packed.size * 2, dtype=np.int8)
    flat[0::2] = (packed.reshape(-1) << 4).view(np.int8)
    flat[1::2] = packed.reshape(-1).view(np.int8)
    flat >>= 4  # arithmetic: it restores the sign
    return flat[:size].reshape(shape)
