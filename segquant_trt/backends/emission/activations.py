"""A site's input as its products read it: smoothed, cut into segments, divided, coded.

Every step is emitted once however many sites ask for it, so that the sites of a group share it.

| wanted            | nodes                                                           |
|-------------------|-----------------------------------------------------------------|
| divisor d         | `Mul(x, 1 / d)`                                                 |
| segments          | the operands of the Concat that made x, else `Split(x)`         |
| row factor r      | `Div(x, r)`                                                     |
| one plane         | `Q -> DQ`, behind `Relu` or `Min(x, 0)` where codes do not clip |
| the same, signed  | `Sub(offset) -> Q -> DQ`, and the product gets the offset back  |
| two planes as rows | `Concat(x+, c x-)` along the first axis, then `Q -> DQ`        |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segquant_trt.backends.emission.arrays import Arrays, divisor_of
from segquant_trt.backends.emission.builder import Builder
from segquant_trt.backends.emission.factors import Factors
from segquant_trt.backends.emission.structure import Structure
from segquant_trt.errors import SegQuantError
from segquant_trt.graph.qdq import quantize_pair, scalar_tensors
from segquant_trt.records import LinearSite, PerStep, SegmentPlan, SitePlan
from segquant_trt.schemes import Encoding

Float = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment's input, ready to be coded, and the factor of its rows."""

    plan: SegmentPlan
    tensor: str
    factor: str | None


class Activations:
    """Emits inputs of sites. `smoothed` maps the output of each divisor's Mul to its 1 / d.

    Args:
        builder: where the nodes go.
        structure: of the float graph.
        factors: of rows.
        arrays: what the plan names by key.
        signed: whether codes are int8 with zero point 0.
    """

    def __init__(
        self,
        builder: Builder,
        structure: Structure,
        factors: Factors,
        arrays: Arrays,
        *,
        signed: bool = False,
    ) -> None:
        self.signed = signed
        self.smoothed: dict[str, Float] = {}
        self._builder = builder
        self._structure = structure
        self._factors = factors
        self._arrays = arrays
        self._multiplied: dict[tuple[str, bytes], str] = {}
        self._pieces: dict[tuple[str, tuple[int, ...]], tuple[str, ...]] = {}
        self._divided: dict[tuple[str, str], str] = {}
        self._polarity: dict[tuple[str, str], str] = {}
        self._decoded: dict[tuple[str, Encoding], str] = {}
        self._padded: dict[tuple[str, tuple[int, ...]], str] = {}
        self._stacked: dict[tuple[str, Encoding, Encoding], str] = {}

    def segments(self, site: LinearSite, plan: SitePlan) -> tuple[Segment, ...]:
        """The site's input, cut and divided.

        Raises:
            SegQuantError: a divisor that does not fit, or factors per step that cannot be made.
        """
        axis, rank = input_axis(site), input_rank(site)
        parts = plan.treatment.segments
        if any(isinstance(part.factor, PerStep) for part in parts):
            self._check_samples(site)
        tensors = self._cut(site, [part.channels for part in parts])
        divisor = divisor_of(site, plan, self._arrays)
        if divisor is not None:
            tensors = self._smoothed(site, tensors, divisor, [part.channels for part in parts])
        found = []
        for part, tensor in zip(parts, tensors, strict=True):
            factor = self._factors.of(part.factor, tensor, axis=axis, rank=rank, site=site.name)
            divided = tensor if factor is None else self._quotient(tensor, factor)
            found.append(Segment(plan=part, tensor=divided, factor=factor))
        return tuple(found)

    def whole(self, site: LinearSite, plan: SitePlan) -> str:
        """The site's smoothed input, in one piece."""
        divisor = divisor_of(site, plan, self._arrays)
        if divisor is None:
            return site.activation
        (made,) = self._smoothed(site, (site.activation,), divisor, [site.in_features])
        return made

    def decoded(self, tensor: str, encoding: Encoding) -> str:
        """`tensor` after the codes of one plane."""
        key = (tensor, encoding)
        if key not in self._decoded:
            own = tensor if encoding.clips_polarity else self._own(tensor, encoding.polarity)
            if self.offset(encoding):
                offset = np.array(self.offset(encoding), dtype=np.float32)
                zero = self._builder.constant(offset, f"{tensor}_offset")
                own = self._builder.node("Sub", [own, zero], f"{tensor}_shifted")
            self._decoded[key] = self._builder.names.fresh(f"{tensor}_decoded")
            self.pair(own, encoding, self._decoded[key])
        return self._decoded[key]

    def offset(self, encoding: Encoding) -> float:
        """What is subtracted before coding, and what products get back: 0 of unsigned codes."""
        return self._builder.number(encoding.offset) if self.signed else 0.0

    def stacked(self, tensor: str, planes: tuple[Encoding, Encoding]) -> tuple[str, float]:
        """Both planes one below the other, coded as the first; and what the second's product
        is to be multiplied by before it is added."""
        positive, negative = planes
        sign = -1.0 if negative.clips_polarity else 1.0
        key = (tensor, positive, negative)
        if key not in self._stacked:
            ratio = np.float32(sign) * np.float32(positive.scale) / np.float32(negative.scale)
            upper, lower = tensor, tensor
            if not (positive.clips_polarity and negative.clips_polarity):
                upper, lower = self._own(tensor, "positive"), self._own(tensor, "negative")
            factor = self._builder.constant(np.array(ratio), f"{tensor}_ratio")
            scaled = self._builder.node("Mul", [lower, factor], f"{tensor}_scaled")
            rows = self._builder.node("Concat", [upper, scaled], f"{tensor}_rows", axis=0)
            self._stacked[key] = self._builder.names.fresh(f"{rows}_decoded")
            self.pair(rows, positive, self._stacked[key])
        back = np.float32(sign) * np.float32(negative.scale) / np.float32(positive.scale)
        return self._stacked[key], float(back)

    def pair(self, source: str, encoding: Encoding, result: str) -> None:
        """A Q/DQ pair from `source` to `result`; of signed codes, without the offset."""
        names = self._builder.names
        zero_point = 0 if self.signed else encoding.zero_point
        stored = names.fresh(f"{source}_codes")
        scale, zero = names.fresh(f"{stored}_scale"), names.fresh(f"{stored}_zero")
        self._builder.constants.extend(
            scalar_tensors(
                self._scale(encoding), zero_point, names=(scale, zero), signed=self.signed
            )
        )
        self._builder.nodes.extend(
            quantize_pair(source, stored, result, scale=scale, zero_point=zero)
        )

    def _scale(self, encoding: Encoding) -> float:
        """Of codes whose scale is to be a number of the final float type, and not zero."""
        return max(self._builder.number(encoding.scale), self._builder.tiny)

    def padded(self, tensor: str, before: Sequence[int], after: Sequence[int]) -> str:
        """`tensor` [B, C, ...] with zeros around it, as many as a convolution would put there."""
        key = (tensor, (*before, *after))
        if key not in self._padded:
            pads = np.array([0, 0, *before, 0, 0, *after], dtype=np.int64)
            name = self._builder.constant(pads, "padding")
            self._padded[key] = self._builder.node("Pad", [tensor, name], f"{tensor}_padded")
        return self._padded[key]

    def _check_samples(self, site: LinearSite) -> None:
        timestep = self._factors.timestep
        if timestep and self._structure.samples_elsewhere(site.activation, timestep):
            raise SegQuantError(
                f"site '{site.name}' has factors per step, but the first axis of its input is not "
                f"that of the samples of '{timestep}'",
                hint="choose static or per_token in the plan",
            )

    def _cut(self, site: LinearSite, sizes: list[int]) -> tuple[str, ...]:
        if len(sizes) == 1:
            return (site.activation,)
        axis, rank = input_axis(site), input_rank(site)
        if rank is not None:
            found = self._structure.segments(site.activation, sizes, axis=axis, rank=rank)
            if found is not None:
                return found
        key = (site.activation, tuple(sizes))
        if key not in self._pieces:
            self._pieces[key] = self._builder.pieces(site.activation, sizes, axis=axis)
        return self._pieces[key]

    def _smoothed(
        self, site: LinearSite, tensors: tuple[str, ...], divisor: Float, sizes: list[int]
    ) -> tuple[str, ...]:
        shape = (-1, *[1] * len(site.kernel))
        bounds = np.cumsum([0, *sizes])
        result = []
        for index, tensor in enumerate(tensors):
            own = divisor[bounds[index] : bounds[index + 1]]
            key = (tensor, own.tobytes())
            if (own == 1.0).all():
                result.append(tensor)
                continue
            if key not in self._multiplied:
                inverse = (1.0 / own.astype(np.float64)).astype(np.float32)
                name = self._builder.constant(inverse.reshape(shape), f"{tensor}_smoothing")
                made = self._builder.node("Mul", [tensor, name], f"{tensor}_smoothed")
                self._multiplied[key] = made
                self.smoothed[made] = inverse
            result.append(self._multiplied[key])
        return tuple(result)

    def _quotient(self, tensor: str, factor: str) -> str:
        key = (tensor, factor)
        if key not in self._divided:
            self._divided[key] = self._builder.node("Div", [tensor, factor], f"{tensor}_divided")
        return self._divided[key]

    def _own(self, tensor: str, polarity: str) -> str:
        key = (tensor, polarity)
        if polarity == "both":
            return tensor
        if key not in self._polarity:
            if polarity == "positive":
                made = self._builder.node("Relu", [tensor], f"{tensor}_positive")
            else:
                zero = self._builder.constant(np.array(0.0, dtype=np.float32), "zero")
                made = self._builder.node("Min", [tensor, zero], f"{tensor}_negative")
            self._polarity[key] = made
        return self._polarity[key]


def input_axis(site: LinearSite) -> int:
    """The channels' axis of a site's input."""
    return 1 if site.op == "Conv" else -1


def input_rank(site: LinearSite) -> int | None:
    """Rank of a site's input and output."""
    return len(site.kernel) + 2 if site.op == "Conv" else site.activation_rank
