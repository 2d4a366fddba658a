"""How one site is quantised: codes of its input segments, row factors, smoothing, weights.

With `x[M, K]` the site's input, `d[K]` its divisor, `r` the row factor of a segment and `Q` its
codes, a site computes `y = sum over segments of r * Q(x / (d r)) @ dequantised(d W) + b`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Symmetric:
    """`q = round(x / scale)` clipped to -128..127; one scale per tensor, amax at 127."""

    kind: Literal["symmetric"] = "symmetric"
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shifted:
    """`q = round(x / scale) - zero_shift` clipped to -128..127, `x ~ scale (q + zero_shift)`.

    As uint8 the same codes are `q + 128` with zero point `128 - zero_shift`.
    """

    kind: Literal["shifted"] = "shifted"
    scale: float
    zero_shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DualScale:
    """SegQuant's DualScale: `max(x, 0)` and `min(x, 0)` on their own symmetric int8 scales.

    `q+ = round(max(x, 0) / positive_scale)` clipped to 0..127, `q-` likewise to -128..0.
    """

    kind: Literal["dual_scale"] = "dual_scale"
    positive_scale: float
    negative_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DualFull:
    """Each polarity on all 256 codes: 0..255 times its own scale, the sign apart."""

    kind: Literal["dual_full"] = "dual_full"
    positive_scale: float
    negative_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignMagnitude:
    """`u = round(|x| / scale)` clipped to 0..255, and the sign: nine bits, one sparse GEMM."""

    kind: Literal["sign_magnitude"] = "sign_magnitude"
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseDual:
    """SignMagnitude with `scale / ratio` for negative values, against `round(codes / ratio)`."""

    kind: Literal["sparse_dual"] = "sparse_dual"
    scale: float
    ratio: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8:
    """`x / scale` rounded to float8 E4M3 (largest value 448), ties to even."""

    kind: Literal["fp8"] = "fp8"
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepFloat:
    """The activation is not quantised."""

    kind: Literal["keep_float"] = "keep_float"


ActivationScheme: TypeAlias = (
    Symmetric | Shifted | DualScale | DualFull | SignMagnitude | SparseDual | Fp8 | KeepFloat
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """No row factor: the scheme's scales hold for every row."""

    kind: Literal["static"] = "static"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerToken:
    """`r = max |x_row|` over the segment's channels, at run time; linears and 1x1 convolutions."""

    kind: Literal["per_token"] = "per_token"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerStep:
    """`r(t) = factors[i]` with i the last of the ascending `edges` that is not above timestep t.

    A timestep below the first edge takes the first factor. Each sample has its own timestep.
    """

    kind: Literal["per_step"] = "per_step"
    edges: tuple[float, ...]
    factors: tuple[float, ...]


RowFactor: TypeAlias = Static | PerToken | PerStep


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """Consecutive input channels that are coded alike; a site that is not split has one."""

    channels: int
    activation: ActivationScheme
    factor: RowFactor = Static()


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothing:
    """A divisor per input channel, multiplied into the weight's rows.

    `divisor` is the key of a float32[channels] array in `scores.safetensors`. `alpha` is
    SmoothQuant's migration strength, `segment_exponent` the power of each segment's range that
    went into it; None where there was no such part.
    """

    divisor: str
    alpha: float | None
    segment_exponent: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """Integer weights: symmetric codes within `+-(2**(bits - 1) - 1)`.

    One scale per output channel, or per output channel and `block` input channels. `codes` is the
    key of optimised codes and scales in `scores.safetensors`; None: rounded to nearest.
    """

    bits: Literal[4, 8] = 8
    block: int | None = None
    rounding: Literal["nearest", "gptq"] = "nearest"
    scale_method: Literal["absmax", "mse"] = "absmax"
    codes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What is done to one site. `weight` None: float weights, and then float activations."""

    segments: tuple[SegmentPlan, ...]
    smoothing: Smoothing | None = None
    weight: WeightPlan | None = None

    @property
    def is_float(self) -> bool:
        """Whether the site is left as it is."""
        return self.weight is None

    @property
    def is_integer(self) -> bool:
        """Whether the products are computed in integers: weights and every segment are coded."""
        coded = all(not isinstance(part.activation, KeepFloat) for part in self.segments)
        return self.weight is not None and coded

    @property
    def label(self) -> str:
        """A short name: `shifted`, `symmetric/per_token`, `split(symmetric+dual_full)`, ..."""
        if self.weight is None:
            return "float"
        parts = [_segment_label(part) for part in self.segments]
        text = parts[0] if len(parts) == 1 else f"split({'+'.join(parts)})"
        if self.smoothing is not None:
            text += "/rescaled" if self.smoothing.segment_exponent is not None else ""
            text += "/smoothed" if self.smoothing.alpha is not None else ""
        if self.weight.bits != 8 or self.weight.rounding != "nearest":
            text += f"/w{self.weight.bits}"
            text += f"-{self.weight.rounding}" if self.weight.rounding != "nearest" else ""
        return text


def _segment_label(part: SegmentPlan) -> str:
    kind = "float" if isinstance(part.activation, KeepFloat) else part.activation.kind
    return kind if isinstance(part.factor, Static) else f"{kind}/{part.factor.kind}"


def left_in_float(channels: int) -> Treatment:
    """The treatment of a site with `channels` input channels that is not touched."""
    return Treatment(segments=(SegmentPlan(channels=channels, activation=KeepFloat()),))
