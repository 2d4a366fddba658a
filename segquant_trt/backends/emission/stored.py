"""What an emitted graph will have stored: data is computed and written later, one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.records import LinearSite, Treatment

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntegerBias:
    """A bias that the runtime turns into int32, in units of `step` times the weight's scale.

    `source`: the float initializer, if there is one; `shift`: float32[N], added to it. The scale
    of a channel of tiny weights must be raised, or its bias would not fit.
    """

    source: str | None
    shift: Float | None
    step: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightCodes:
    """Codes of one segment of a site's weight, to be computed from the site's float weight.

    They are stored in the order of a convolution's weight, with output channels on axis 0, or as
    [K, N]. `decoded` is what the graph makes of them. `gain`: float32[N], multiplied into the
    scales; the codes are those of the weight without it. `relative`: the name of each channel's
    scale over a scalar, which is then all that is stored as `scale`.

    Products never share the names: ONNX Runtime's move of weights to uint8 (see its backend)
    fails on an initializer with two readers.
    """

    site: LinearSite
    treatment: Treatment
    segment: int
    codes: str
    scale: str
    zero_point: str | None
    decoded: str
    integer_bias: IntegerBias | None = None
    gain: Float | None = None
    relative: str | None = None

    @property
    def channel_axis(self) -> int:
        """The output channels' axis of the codes."""
        return 0 if self.site.op == "Conv" else 1

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of the codes."""
        site, channels = self.site, self.treatment.segments[self.segment].channels
        if site.op == "Conv":
            return (site.out_features, channels // site.groups, *site.kernel)
        return (channels, site.out_features)

    @property
    def column(self) -> tuple[int, ...]:
        """Shape of one number per output channel that broadcasts to the product."""
        return (self.site.out_features, *[1] * len(self.site.kernel))

    @property
    def block(self) -> int | None:
        """Input channels with one scale; None: all of them."""
        return None if self.treatment.weight is None else self.treatment.weight.block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloatTensor:
    """float32 `source * gain + shift`; all three broadcast to `shape`.

    `transpose`: of the source, a matrix, before that. `source` None: zeros. A source of as many
    elements as `shape` is reshaped to it first.
    """

    name: str
    source: str | None
    shape: tuple[int, ...]
    transpose: bool = False
    gain: Float | None = None
    shift: Float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """float32 `offset * colsum(decoded weight)`, shaped `shape`: what signed codes leave out."""

    name: str
    weight: WeightCodes
    offset: float
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegLinearData:
    """Weight inputs of one call of `segquant::SegLinear`.

    `parts`: codes of each segment, stacked along K to `codes` int8[K, N] with `scale`
    float32[S, N]. `steps`: per plane its segment and what its codes are short of, as a number
    `scale * zero_shift`; the products that they are short of add up to `correction` float32[N].
    """

    parts: tuple[WeightCodes, ...]
    steps: tuple[tuple[int, float], ...]
    codes: str
    scale: str
    correction: str
