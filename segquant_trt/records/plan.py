"""`plan.yaml`: what is done to every site, and why. Readable, editable, diffable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Target = Literal["onnxruntime", "openvino"]
TARGETS: tuple[Target, ...] = ("onnxruntime", "openvino")


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
class KeepFloat:
    """The site is left as it is."""

    kind: Literal["keep_float"] = "keep_float"


ActivationScheme: TypeAlias = Symmetric | Shifted | KeepFloat


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """Integer weights: symmetric, one scale per output channel, codes -(2^(bits-1)-1)..."""

    bits: Literal[8] = 8
    rounding: Literal["nearest"] = "nearest"
    scale_method: Literal["absmax", "mse"] = "absmax"


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """An alternative that was weighed: its site SQNR on calibration rows in dB."""

    option: str
    sqnr_db: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePlan:
    """The decision for one site.

    `output_range` is the calibrated (min, max) of the site's output: convolutions on CPU targets
    requantise their output with it (see `backends`); None where no range was recorded.
    """

    site: str
    module: str | None
    activation: ActivationScheme
    weight: WeightPlan | None
    output_range: tuple[float, float] | None
    macs_per_sample: int
    why: str
    considered: tuple[Considered, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantPlan:
    """The whole plan. The digests tie it to the records that it was made from."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int = 1
    target: Target
    preset: str
    onnx_sha256: str
    facts_sha256: str
    calibration_sha256: str
    sites: tuple[SitePlan, ...]
