"""How a scheme's codes are stored in a graph: planes of uint8 codes with a zero point each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Polarity = Literal["both", "positive", "negative"]

_MIDDLE = 128  # uint8 code of the int8 code 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """`code = clip(round(x / scale) + zero_point, 0, 255)`, `x ~ scale (code - zero_point)`.

    uint8 for every CPU target: an int8 code c is the uint8 code c + 128, so both decode to the
    same number, and ONNX Runtime has fast kernels only for uint8 activations.

    A plane that codes one polarity sees `max(x, 0)` or `min(x, 0)`; with zero point 0 or 255 the
    clipping of the codes does that by itself. The planes of a scheme add up to `x`.
    """

    scale: float
    zero_point: int
    polarity: Polarity = "both"

    @property
    def clips_polarity(self) -> bool:
        """Whether saturation alone removes the other polarity."""
        return (self.polarity, self.zero_point) in (("positive", 0), ("negative", 255))

    @property
    def offset(self) -> float:
        """What the int8 code 0 stands for: `x ~ scale * int8 code + offset`; a float32 value."""
        return float(np.float32(self.scale) * np.float32(_MIDDLE - self.zero_point))

    def quantize(self, x: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
        """Codes of `x`, as ONNX QuantizeLinear computes them: float32 division, ties to even."""
        with np.errstate(over="ignore"):
            ratio = self._own(np.asarray(x, dtype=np.float32)) / np.float32(self.scale)
        codes: npt.NDArray[np.float32] = np.clip(np.rint(ratio) + self.zero_point, 0, 255)
        return codes.astype(np.uint8)

    def dequantize(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The float32 values that `codes` stand for."""
        values: npt.NDArray[np.float32] = codes.astype(np.float32) - np.float32(self.zero_point)
        values *= np.float32(self.scale)
        return values

    def _own(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        match self.polarity:
            case "both":
                return x
            case "positive":
                return np.clip(x, np.float32(0.0), None)
            case "negative":
                return np.clip(x, None, np.float32(0.0))


def output_encoding(low: float, high: float) -> Encoding:
    """Asymmetric codes over `[min(low, 0), max(high, 0)]`, for requantised outputs."""
    low, high = min(low, 0.0), max(high, 0.0)
    tiny = float(np.finfo(np.float32).tiny)
    scale = max(float(np.float32((high - low) / 255.0)), tiny)
    return Encoding(scale=scale, zero_point=int(np.clip(np.rint(-low / scale), 0, 255)))
